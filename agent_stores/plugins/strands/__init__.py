"""The plug-in for Strands Agents; import it from `agent_stores.strands`."""
