"""Microsoft Agent Framework: what its versions share, and the plug-in for 1.x."""
