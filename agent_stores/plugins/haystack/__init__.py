"""The plug-in for Haystack; import it from `agent_stores.haystack`."""
