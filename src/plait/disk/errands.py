"""The only place where the engine's thread and the disk's meet: errands one way, results the other."""

import threading
from collections import deque
from dataclasses import dataclass

from plait.disk.pins import Wish
from plait.disk.record import Record
from plait.disk.results import Result


@dataclass(slots=True, frozen=True)
class Write:
    """Put it on disk. The payload must not change before its `Written` or `Lost`."""

    record: Record
    payload: list[memoryview]


@dataclass(slots=True, frozen=True)
class Fetch:
    """Read it from disk."""

    id: bytes


@dataclass(slots=True, frozen=True)
class Remove:
    """What it holds is of no use."""

    id: bytes


@dataclass(slots=True, frozen=True)
class Use:
    """These were used just now."""

    ids: list[bytes]


@dataclass(slots=True, frozen=True)
class Clear:
    """Forget everything of one scope, or of all."""

    scope: str | None


@dataclass(slots=True, frozen=True)
class Pin:
    """Do not evict that, from when it is on disk."""

    wish: Wish


Errand = Write | Fetch | Remove | Use | Clear | Pin


class Errands:
    """Two lanes. What a request waits for overtakes what is only written so that others find it later."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._first: deque[Fetch | Remove | Use | Clear | Pin] = deque()
        self._later: deque[Write] = deque()
        self._results: deque[Result] = deque()
        self._is_over = False

    # ── from the engine's thread ─────────────────────────────────────────────────────────────────────────────────

    def put(self, errand: Errand) -> None:
        with self._turn:
            if isinstance(errand, Write):
                self._later.append(errand)
            else:
                self._first.append(errand)
            self._turn.notify()

    def withdraw(self, scope: str | None) -> list[bytes]:
        """What was to be written of one scope, or of all, is not; returns whose ids."""
        with self._turn:
            withdrawn = [write for write in self._later if scope in (None, write.record.scope)]
            self._later = deque(write for write in self._later if scope not in (None, write.record.scope))
        return [write.record.id for write in withdrawn]

    def results(self) -> list[Result]:
        """Those since the last call."""
        return [self._results.popleft() for _ in range(len(self._results))]

    def finish(self) -> None:
        """There will be no more."""
        with self._turn:
            self._is_over = True
            self._turn.notify()

    # ── from the disk's thread ───────────────────────────────────────────────────────────────────────────────────

    def take(self) -> Errand | None:
        """The next one; waits for it. None: there will be no more."""
        with self._turn:
            self._turn.wait_for(lambda: self._first or self._later or self._is_over)
            if self._first:
                return self._first.popleft()
            return self._later.popleft() if self._later else None

    @property
    def is_empty(self) -> bool:
        return not self._first and not self._later

    def tell(self, result: Result) -> None:
        self._results.append(result)
