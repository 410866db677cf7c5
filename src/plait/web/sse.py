"""Framing of server-sent events. Knows nothing of what an event says."""

DONE = b"data: [DONE]\n\n"
"""How OpenAI's streams end, and all that imitate them."""


def event(data: bytes, name: str | None = None) -> bytes:
    """One event; `data` is one line, as JSON from msgspec always is."""
    if name is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients skip: it keeps a silent connection open."""
    return b": " + text.encode() + b"\n\n"


RESUMING = comment("resuming")
"""The engine died, and the answer will go on with the next."""
