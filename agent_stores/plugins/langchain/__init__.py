"""The plug-in for LangChain; import it from `agent_stores.langchain`."""
