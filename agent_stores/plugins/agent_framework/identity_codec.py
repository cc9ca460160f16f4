"""The codec of our own messages, for what wants one."""

from __future__ import annotations

from agent_stores.messages import ChatMessage


class NeutralCodec:
    """Gives messages as it gets them: the plug-in converts them itself, once calls and results are paired."""

    def to_chat_message(self, message: ChatMessage) -> ChatMessage:
        """The message itself."""
        return message

    def from_chat_message(self, message: ChatMessage) -> ChatMessage:
        """The message itself."""
        return message
