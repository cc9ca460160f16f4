"""The plug-in for the OpenAI Agents SDK; import it from `agent_stores.openai_agents`."""
