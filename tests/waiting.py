"""Waiting for something to become true, with a deadline, instead of sleeping and hoping."""

import asyncio
import threading
import time
from collections.abc import Callable

import anyio

PAUSE = 0.02
"""Between two looks, seconds."""
SECONDS = 120.0
"""Until something that should happen soon has not: a machine may be slow, and stand still for some of them."""


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Returns as soon as `condition()` is true; fails when it is not within `seconds`."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        never.wait(PAUSE)


async def soon(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """The same, while the event loop turns."""
    never = asyncio.Event()
    with anyio.fail_after(seconds):
        while not condition():
            with anyio.move_on_after(PAUSE):
                await never.wait()
