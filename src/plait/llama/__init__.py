"""The only package that touches native code. Every call that could abort the process is guarded here."""
