"""The forms in which other libraries store a message, read into a `ChatMessage` by way of the plug-ins."""
