"""The plug-in for ChatKit; import it from `agent_stores.chatkit`."""
