"""The plug-in for the Claude Agent SDK; import it from `agent_stores.claude_agent`."""
