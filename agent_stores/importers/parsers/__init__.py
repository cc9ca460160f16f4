"""Parsers of other libraries' message formats; each returns a `ChatMessage`."""
