"""Plait: an HTTP server for GGUF language models.

The package's version is said here and nowhere else; everything else is in the rooms below.
"""

__version__ = "0.1.0"
