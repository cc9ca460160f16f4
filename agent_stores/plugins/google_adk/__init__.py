"""The plug-in for Google ADK; import it from `agent_stores.google_adk`."""
