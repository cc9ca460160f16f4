"""Plug-ins: the stores as each agent framework takes them; a package a framework, imported by its users only."""
