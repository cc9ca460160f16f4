"""Tools for testing stores, agents and the conversations that they send."""
