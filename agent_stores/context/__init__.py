"""Context providers that need no service, and what providers share: putting foreign text before a model."""

from agent_stores.context.blocks import data_message, within_tokens
from agent_stores.context.recall import DEFAULT_RECALL_PROMPT, RecallProvider
from agent_stores.context.summary import DEFAULT_SUMMARY_PROMPT, SummaryProvider

__all__ = [
    "DEFAULT_RECALL_PROMPT",
    "DEFAULT_SUMMARY_PROMPT",
    "RecallProvider",
    "SummaryProvider",
    "data_message",
    "within_tokens",
]
