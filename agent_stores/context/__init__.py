"""Context providers that need no service, and what providers share: putting foreign text before a model."""

from agent_stores.context.blocks import data_message, within_tokens

__all__ = ["data_message", "within_tokens"]
