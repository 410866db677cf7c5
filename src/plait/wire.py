"""Length-prefixed frames on a byte stream: four bytes of length, big-endian, then that many bytes.

Knows nothing of what a frame says; `protocol` does. EOF between frames is how either side learns of the other's death.
"""

import asyncio

MAX_FRAME = 64 * 1024 * 1024
"""A longer frame is a defect or an attack: the stream is given up."""


class BrokenFrame(ConnectionError):
    """The other side sent a length that no frame may have."""


def pack(body: bytes) -> bytes:
    """A frame that carries `body`."""
    return len(body).to_bytes(4, "big") + body


async def read(stream: asyncio.StreamReader) -> bytes:
    """The next frame's body. Raises `asyncio.IncompleteReadError` at the end, `BrokenFrame` for a mad length."""
    n = int.from_bytes(await stream.readexactly(4), "big")
    if n > MAX_FRAME:
        raise BrokenFrame(f"a frame of {n} bytes; {MAX_FRAME} is the most")
    return await stream.readexactly(n)
