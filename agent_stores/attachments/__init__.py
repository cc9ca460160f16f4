"""Attachments: large data of messages, stored once in a file system or object store. Extra ``attachments``."""

from agent_stores.attachments.settings import Attachments

__all__ = ["Attachments"]
