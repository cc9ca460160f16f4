"""The plug-in for LangGraph; import it from `agent_stores.langgraph`."""
