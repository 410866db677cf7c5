"""The disk, as the prefix cache sees it; `disk.Shelf` and the tests' both fit."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from plait.disk import Record, Result, Wish


class Shelf(Protocol):
    """What this needs of the disk. Nothing here waits for it; `done` tells what happened."""

    def records(self) -> list[Record]:
        """What there is at the beginning, parents first."""
        ...

    @property
    def n_queued_bytes(self) -> int:
        """What is still to be written."""
        ...

    def write(self, record: Record, payload: Sequence[memoryview]) -> None:
        """Begin to write."""
        ...

    def read(self, id: bytes) -> None:
        """Begin to read what was written."""
        ...

    def remove(self, id: bytes) -> None:
        """That file is of no use."""
        ...

    def use(self, ids: Iterable[bytes]) -> None:
        """These were good for something just now."""
        ...

    def pin(self, wish: Wish) -> None:
        """Do not evict that."""
        ...

    def done(self) -> Sequence[Result]:
        """What was written, what was read, and what turned out not to be there, since the last time."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...
