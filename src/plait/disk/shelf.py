"""What the engine sees of the disk: one model's folder. Every method returns at once; answers come out of `done()`."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from plait.disk.errands import Clear, Errands, Fetch, Pin, Remove, Use, Write
from plait.disk.keeper import Keeper, State
from plait.disk.pins import Wish
from plait.disk.record import Record
from plait.disk.results import Lost, Result, Written
from plait.disk.store import Store


class Shelf:
    """Used by one thread. Opening takes as long as listing the folder, and never fails: of a folder that cannot be
    used there are no records, and nothing is written to it.

    `folder` is `<cache-dir>/<folder_key()>`, `name` is for people, `max_bytes` (of files, the temporary one counted)
    is above 0.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._errands = Errands()
        store = Store(folder, name, max_bytes, self._errands.tell)
        self._records = store.kin.in_order()
        self._keeper = Keeper(store, self._errands, clock)
        self._queued: dict[bytes, int] = {}
        self._keeper.start()

    def records(self) -> list[Record]:
        """What was there at the start, parents before children."""
        return self._records

    def write(self, record: Record, payload: Sequence[memoryview | bytes | bytearray]) -> None:
        """Ends in `Written` or `Lost`. Until then the payload is kept and must not change.

        Its parent was written before it, or queued to be. Raises `ValueError` for a record that contradicts itself.
        """
        parts = [memoryview(part).cast("B") for part in payload]
        if not record.is_whole or sum(map(len, parts)) != record.n_bytes:
            raise ValueError("a record that contradicts itself or its payload")
        self._queued[record.id] = record.n_bytes
        self._errands.put(Write(record, parts))

    def read(self, id: bytes) -> None:
        """Ends in `Read` or `Lost`. Overtakes what is to be written, so ask only for what is `Written`."""
        self._errands.put(Fetch(id))

    def remove(self, id: bytes) -> None:
        """What was written there is of no use. Ends in `Lost`, which names all that hangs on it, too."""
        self._errands.put(Remove(id))

    def use(self, ids: Iterable[bytes]) -> None:
        """These were used now. What is read is used, too."""
        self._errands.put(Use(list(ids)))

    def pin(self, wish: Wish) -> None:
        """That is not evicted while the wish's file is there, within bounds; also where it is still to be written."""
        self._errands.put(Pin(wish))

    def clear(self, scope: str | None = None) -> None:
        """Forget everything of one scope, or of all: files, and what was to be written. `Lost` names them."""
        if withdrawn := self._errands.withdraw(scope):
            self._errands.tell(Lost(tuple(withdrawn), "cleared"))
        self._errands.put(Clear(scope))

    def done(self) -> list[Result]:
        """What happened since the last call. `Lost` may name ids that were never heard of."""
        results = self._errands.results()
        for result in results:
            match result:
                case Written(record):
                    self._queued.pop(record.id, None)
                case Lost(ids):
                    for id in ids:
                        self._queued.pop(id, None)
        return results

    def close(self, timeout: float) -> None:
        """Finish what is queued. What takes longer than `timeout` seconds is left undone when the process ends."""
        self._errands.finish()
        self._keeper.join(timeout)

    @property
    def n_queued_bytes(self) -> int:
        """Of payloads that are still to be written, and kept in RAM until then."""
        return sum(self._queued.values())

    @property
    def state(self) -> State:
        """How much is on disk, of all processes that use the folder."""
        return self._keeper.state
