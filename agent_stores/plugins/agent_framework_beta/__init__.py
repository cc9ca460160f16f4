"""The plug-in for Microsoft Agent Framework's betas, which had message stores and threads."""
