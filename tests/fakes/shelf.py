"""A disk in memory, as `engine.segments` sees it: it takes its time, and sometimes loses things."""

import random
from collections.abc import Iterable, Sequence

from plait.disk import Lost, Read, Record, Result, Why, Wish, Written


class FakeShelf:
    """What is asked of it is done a few calls of `done` later. With `rng`, files get lost."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng
        self.files: dict[bytes, tuple[Record, bytes]] = {}
        self.queue: list[Result] = []
        self.n_written = self.n_read = self.n_failed = 0
        self.is_stuck = False
        """Nothing is done any more."""
        self.wishes: list[Wish] = []
        self.n_queued = 0
        """Bytes that it says are still to be written."""
        self.is_full = False
        """What is to be written fails, and may be written later."""

    @property
    def n_queued_bytes(self) -> int:
        return self.n_queued

    def records(self) -> list[Record]:
        return [record for record, _ in self.files.values()]

    def write(self, record: Record, payload: Sequence[memoryview]) -> None:
        if record.start and record.parent not in self.files:
            self.queue.append(Lost((record.id,), "refused"))
            return
        if self.is_full:
            self.n_failed += 1
            self.queue.append(Lost((record.id,), "failed"))
            return
        held, _ = self.files.setdefault(record.id, (record, b"".join(payload)))
        self.n_written += 1
        self.queue.append(Written(held))

    def read(self, id: bytes) -> None:
        if id in self.files:
            record, payload = self.files[id]
            self.n_read += 1
            self.queue.append(Read(record, bytearray(payload)))
        else:
            self.queue.append(Lost((id,), "gone"))

    def use(self, ids: Iterable[bytes]) -> None:
        pass

    def pin(self, wish: Wish) -> None:
        self.wishes.append(wish)

    def remove(self, id: bytes) -> None:
        self.lose(id, "bad")

    def lose(self, id: bytes, why: Why = "evicted") -> None:
        """A file is gone, and with it all that hangs on it."""
        lost = [id]
        for each in lost:
            lost += [other for other, (record, _) in self.files.items() if record.parent == each]
        for each in lost:
            self.files.pop(each, None)
        self.queue.append(Lost(tuple(lost), why))

    def done(self) -> list[Result]:
        if self.rng and self.files and self.rng.random() < 0.05:
            self.lose(self.rng.choice(list(self.files)))
        if self.is_stuck or (self.rng and self.rng.random() < 0.5):
            return []
        results, self.queue = self.queue, []
        return results

    def clear(self) -> None:
        self.files.clear()
        self.queue.clear()
