"""Servers to measure Plait beside: one file each, that knows how to install one, and how to start it."""
