"""Plug-ins: the stores as each agent framework takes them; a package for each, imported by its users only."""
