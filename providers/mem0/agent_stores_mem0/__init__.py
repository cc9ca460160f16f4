"""Mem0 as a context provider for agent-stores: what a user told in one conversation, remembered in another.

Importing this package turns mem0's telemetry off, unless the environment sets ``MEM0_TELEMETRY``.
"""

from agent_stores_mem0.arguments import DEFAULT_CONTEXT_PROMPT
from agent_stores_mem0.background import UnwrittenTurn
from agent_stores_mem0.provider import Mem0Provider
from agent_stores_mem0.telemetry import turn_telemetry_off

__all__ = ["DEFAULT_CONTEXT_PROMPT", "Mem0Provider", "UnwrittenTurn"]

turn_telemetry_off()
