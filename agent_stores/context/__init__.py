"""Context providers that need no service, and functions for others that show untrusted text to a model."""

from agent_stores.context.delimited import delimited_message, fit_budget
from agent_stores.context.recall import DEFAULT_RECALL_PROMPT, RecallProvider
from agent_stores.context.summary import DEFAULT_SUMMARY_PROMPT, SummaryProvider

__all__ = [
    "DEFAULT_RECALL_PROMPT",
    "DEFAULT_SUMMARY_PROMPT",
    "RecallProvider",
    "SummaryProvider",
    "delimited_message",
    "fit_budget",
]
