"""The plug-in for Pydantic AI; import it from `agent_stores.pydantic_ai`."""
