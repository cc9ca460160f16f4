"""Attachments: large data of messages, stored once, in any file system. Extra ``attachments``."""

from agent_stores.attachments.settings import Attachments

__all__ = ["Attachments"]
