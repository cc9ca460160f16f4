"""The backends: one database each, below `agent_stores.log`."""
