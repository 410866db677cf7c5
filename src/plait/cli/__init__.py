"""The `plait` command. Calls, does not do."""
