"""Between messages and tokens: chat templates, and token bytes to text with stop strings. Pure."""
