"""Which models exist, which run, and where. No native code; HTTP is unknown here."""
