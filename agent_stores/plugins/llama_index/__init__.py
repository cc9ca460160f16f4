"""The plug-in for LlamaIndex; import it from `agent_stores.llama_index`."""
