"""The plug-in for AG2; import it from `agent_stores.ag2`."""
