"""Blocks that can be left from outside, as if they had ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def leavable(seconds: float | None = None) -> AsyncIterator[asyncio.Timeout]:
    """Run the block until it ends, or until the timeout that it gets is over; `reschedule(0)` ends it now.

    The block is cancelled once: anyio's scopes go on cancelling, and so would interrupt who is cleaning up.
    """
    patience = asyncio.timeout(seconds)
    try:
        async with patience:
            yield patience
    except TimeoutError:
        if not patience.expired():
            raise
