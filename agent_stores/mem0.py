"""The Mem0 provider: long-term memory by mem0, hosted or in this process. Needs the extra ``mem0``."""

from agent_stores_mem0 import DEFAULT_CONTEXT_PROMPT, Mem0Provider, UnwrittenTurn

__all__ = ["DEFAULT_CONTEXT_PROMPT", "Mem0Provider", "UnwrittenTurn"]
