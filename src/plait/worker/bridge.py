"""The only place where the worker's two threads meet.

Towards the engine: a queue of orders, taken between steps. Towards the socket: the events of one step, in one piece.
"""

import asyncio
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from plait.protocol import Event
from plait.worker.session import Work


@dataclass(slots=True, frozen=True)
class Submit:
    """Run this."""

    work: Work


@dataclass(slots=True, frozen=True)
class Drop:
    """Forget the request of this id, if it still runs."""

    id: int
    n_steps: int
    """The engine's when this was put."""


@dataclass(slots=True, frozen=True)
class Stop:
    """The gateway is gone, or has had enough."""


@dataclass(slots=True, frozen=True)
class Empty:
    """Empty the prefix cache."""


Errand = Submit | Drop | Empty | Stop


class Bridge:
    """`send` runs on the I/O thread, once per `flush`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[list[Event]], None]) -> None:
        self._loop = loop
        self._send = send
        self._errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._events: list[Event] = []
        self.n_steps = 0
        """Of the engine so far: its thread writes, the I/O thread reads."""

    # ── from the I/O thread ──────────────────────────────────────────────────────────────────────────────────────

    def put(self, errand: Errand) -> None:
        self._errands.put(errand)

    # ── from the engine's thread ─────────────────────────────────────────────────────────────────────────────────

    def errands(self, patience: float) -> Iterator[Errand]:
        """What came since the last time. Waits up to `patience` seconds for the first."""
        try:
            yield self._errands.get(timeout=patience) if patience else self._errands.get_nowait()
            while True:
                yield self._errands.get_nowait()
        except queue.Empty:
            return

    def say(self, event: Event) -> None:
        self._events.append(event)

    def flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._loop.call_soon_threadsafe(self._send, events)
