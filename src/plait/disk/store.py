"""One folder of the disk tier: its files, its index, and what this process believes of both. Knows nothing of threads.

The files are the truth. What the index says is believed where a file of that size is there and the record's digest is
right; everything else is read from the files' headers. What makes no sense is removed: it is a cache.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from plait.config import format_bytes
from plait.disk import index as indexes
from plait.disk import segment
from plait.disk.claim import Claim
from plait.disk.index import Index, Row
from plait.disk.kin import Kin, reachable
from plait.disk.pins import MAX_PINS, SHARE, Wish, Wishes
from plait.disk.record import Record
from plait.disk.results import Lost, Why
from plait.disk.segment import BadSegment, Sealed

log = logging.getLogger("plait.disk")

STALE_SECONDS = 3600.0
"""A temporary file that nobody wrote to for so long is left over, even while other processes use the folder."""


class Refused(Exception):
    """A record that cannot be kept, through no fault of the disk."""


class Store:
    """Owned by one thread at a time. `tell` hears of everything that is lost, before it happens.

    Opening never fails: of a folder that cannot be used, nothing is known. Later, `OSError` and `sqlite3.Error` come
    through, and leave everything usable.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int, tell: Callable[[Lost], None]) -> None:
        self.folder = folder
        self.name = name
        self.max_bytes = max_bytes
        self.tell = tell
        self.kin = Kin()
        self.wishes = Wishes()
        self.claim: Claim | None = None
        self.open()

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        oddities: Counter[str] = Counter()
        self._enter(oddities)
        path = self.folder / indexes.FILE
        try:
            self._begin(path, oddities)
        except sqlite3.Error as error:
            try:
                self._begin_again(path, error, oddities)
            except (OSError, sqlite3.Error) as another:
                oddities[f"index cannot be used ({another})"] += 1
                self._begin(None, oddities)
        if oddities:
            said = ", ".join(f"{n} {what}" if n > 1 else what for what, n in oddities.items())
            log.warning("disk cache in %s: %s; going on with %d files", self.folder, said, len(self.kin.records))

    def reopen(self) -> None:
        """Find out anew what there is, after the index broke or was taken away."""
        before = set(self.kin.records)
        self.close()
        self.open()
        if lost := before - set(self.kin.records):
            self.tell(Lost(tuple(lost), "gone"))

    def close(self) -> None:
        self.index.close()
        self._leave()

    @property
    def is_durable(self) -> bool:
        """False: there is no place for an index, so files cannot be written either."""
        return self.index.path is not None

    def _enter(self, oddities: Counter[str]) -> None:
        """Be in the folder, so that nobody takes it for unused."""
        with _noting(oddities, "folder cannot be used"):
            while self.claim is None or self.claim.is_void:  # removed by `plait cache clear` in this very moment
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._leave()
                self.claim = Claim(self.folder)
                self._sweep(self.claim)

    def _leave(self) -> None:
        if self.claim:
            self.claim.close()
            self.claim = None

    def _sweep(self, claim: Claim) -> None:
        """Remove what a crash left behind. Who is alone knows that nobody is writing."""
        is_alone = claim.alone()
        for path in self.folder.glob(f"*{segment.TEMPORARY}"):
            with contextlib.suppress(FileNotFoundError):
                if is_alone or time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
        claim.share()

    def _begin(self, path: Path | None, oddities: Counter[str]) -> None:
        """With the index in that file, or with one in memory. Raises `sqlite3.Error`."""
        self.index = Index(path, self.name)
        try:
            with self.index.changing():
                oddities.update(self._take_stock())
        except sqlite3.Error:
            self.index.close()
            raise

    def _begin_again(self, path: Path, error: sqlite3.Error, oddities: Counter[str]) -> None:
        """Raises the error itself when a new index would do no better."""
        if not indexes.is_broken(error):
            raise error
        indexes.set_aside(self.folder)
        oddities[f"index set aside ({error})"] += 1
        self._begin(path, oddities)

    def _take_stock(self) -> Counter[str]:
        """Hold index and files against each other; returns what was odd. The index must be changing."""
        oddities: Counter[str] = Counter()
        rows = {row.id: row for row in self.index.rows()}
        files = dict(self._files(oddities))
        found = [self._examine(id, info, rows.get(id), oddities) for id, info in files.items()]
        records = [record for record in found if record]
        self.kin = reachable(records)
        for id in rows.keys() - self.kin.records.keys():
            self.index.remove(id)
        for record in records:
            if record.id not in self.kin.records:
                oddities["file without what comes before it"] += 1
                self._discard(record.id, oddities)
        with _noting(oddities, "file cannot be removed"), contextlib.suppress(Refused):
            self._make_room(0)
        return oddities

    def _files(self, oddities: Counter[str]) -> Iterator[tuple[bytes, os.stat_result]]:
        with _noting(oddities, "folder cannot be read"), os.scandir(self.folder) as entries:
            for entry in entries:
                if id := segment.id_of(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # another process is at work
                        yield id, entry.stat(follow_symlinks=False)

    def _examine(self, id: bytes, info: os.stat_result, row: Row | None, oddities: Counter[str]) -> Record | None:
        """What a file holds, as far as its header tells; the payload is looked at when it is read."""
        try:
            if row and (record := self._believed(row, info)):
                return record
            sealed = segment.skim(self._path(id))
            record = segment.unseal(self.folder.name, sealed)
        except FileNotFoundError:
            return None
        except OSError:
            oddities["file cannot be read"] += 1
            return None
        except BadSegment:
            oddities["bad file"] += 1
            self._discard(id, oddities)
            return None
        self._index_add(record, sealed, info.st_mtime_ns // 1000)
        return record

    def _believed(self, row: Row, info: os.stat_result) -> Record | None:
        """The index's word, if it agrees with itself and with the file's size."""
        try:
            record = segment.unseal(self.folder.name, row.sealed)
        except BadSegment:
            return None
        said = (row.id, row.parent, row.scope, row.n_bytes)
        is_right = said == (record.id, record.parent, record.scope, segment.n_bytes(record))
        return record if is_right and row.n_bytes == info.st_size else None

    # ── using ────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, record: Record, payload: Sequence[memoryview]) -> Record:
        """What is on disk now: the record, or what another process had written there. Raises `Refused`, too."""
        if not self.index.is_current:
            self.reopen()
        parent = self.kin.get(record.parent)
        if record.start and not (parent and record.hangs_on(parent)):
            raise Refused("what comes before it is not on disk")
        held = self._held(record) or self._write(record, payload)
        self.kin.add(held)
        for wish in self.wishes.met_by(held):
            self._fulfil(wish, held)
        return held

    def pin(self, wish: Wish) -> None:
        """Now, or when it is written, evict that no more."""
        if met := [record for record in self.kin.records.values() if wish.is_met_by(record)]:
            self._fulfil(wish, min(met, key=lambda record: record.end))
        else:
            self.wishes.add(wish)

    def load(self, id: bytes) -> tuple[Record, bytearray] | None:
        """None: it is lost, and that was told."""
        record = self.kin.get(id)
        if record is None:
            self.tell(Lost((id,), "gone"))
            return None
        try:
            found, payload = segment.load(self._path(id))
            if not found.says_the_same(record):
                raise BadSegment("the record is not the one that was asked for")
        except FileNotFoundError:
            self.drop(id, "gone")
        except BadSegment as error:
            log.warning("disk cache: %s removed: %s", self._path(id), error)
            self.drop(id, "bad")
        else:
            return found, payload
        return None

    def drop(self, id: bytes, why: Why) -> None:
        """The file, and all that hangs on it."""
        self.forget([id], why)
        with self.index.changing():
            for below in [*self.index.below(id), id]:
                self._remove(below)

    def forget(self, ids: Iterable[bytes], why: Why) -> None:
        """From now on these, and all that hangs on them, are not known; the files stay as they are."""
        tree = self.kin.tree(ids)
        self.tell(Lost(tuple(tree), why))
        for id in tree:
            self.kin.pop(id)

    def touch(self, used: dict[bytes, int]) -> None:
        """When which was last used, in microseconds since 1970."""
        self.index.touch([(when, id) for id, when in used.items()])

    def clear(self, scope: str | None) -> None:
        """Everything of one scope, or of all; of other processes, too."""
        if not self.index.is_current:
            self.reopen()
        try:
            self._clear(scope)
        except sqlite3.Error as error:
            if not indexes.is_broken(error):
                raise
            self.reopen()
            self._clear(scope)

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _clear(self, scope: str | None) -> None:
        """Files go first, so that they are gone even where the index fails."""
        known = [record.id for record in self.kin.in_order() if scope in (None, record.scope)]
        if known:
            self.forget(known, "cleared")
        for id in known:
            self._path(id).unlink(missing_ok=True)
        with self.index.changing():
            for id in self.index.of_scope(scope):
                self._remove(id)
            self.index.unpin_scope(scope)

    def _held(self, record: Record) -> Record | None:
        """The same range, if it is on disk already."""
        sealed = self.index.find(record.id)
        if sealed is None or not self._path(record.id).exists():
            return None
        try:
            held = segment.unseal(self.folder.name, sealed)
        except BadSegment:
            return None
        return held if held.says_the_same(record) else None

    def _write(self, record: Record, payload: Sequence[memoryview]) -> Record:
        """There is room for it before it is written, and while other processes write, afterwards as well."""
        before = sum(segment.n_bytes(ancestor) for ancestor in self.kin.path(record.parent))
        if before + segment.n_bytes(record) > self.max_bytes:
            raise Refused("it is too large with all that comes before it")
        with self.index.changing():
            self._expect_parent(record)
            self._make_room(segment.n_bytes(record), record.parent)
        segment.save(self.folder, record, payload)
        try:
            with self.index.changing():
                self._expect_parent(record)
                self._index_add(record, segment.seal(self.folder.name, record), now())
                self._make_room(0, record.parent, record.id)
        except BaseException:
            self._path(record.id).unlink(missing_ok=True)
            raise
        return record

    def _expect_parent(self, record: Record) -> None:
        if record.start and self.index.find(record.parent) is None:
            self.forget([record.parent], "gone")
            raise Refused("another process removed what comes before it")

    def _make_room(self, n_bytes: int, *spared: bytes) -> None:
        """Evict leaves, the least recently used first, until so many bytes fit. The index must be changing."""
        _, n_held = self.index.total()
        if n_held + n_bytes <= self.max_bytes:
            return
        self._bound_pins()
        if self.index.n_staying(spared) + n_bytes > self.max_bytes:
            raise Refused("what must stay leaves no room for it")
        while n_held + n_bytes > self.max_bytes:
            leaf = self.index.oldest_leaf(spared)
            if leaf is None:
                raise Refused("nothing else may go")
            id, n_leaf = leaf
            self.forget([id], "evicted")
            self._remove(id)
            n_held -= n_leaf

    def _fulfil(self, wish: Wish, record: Record) -> None:
        if self.index.find(record.id) is None:  # another process has removed it; it will be written again
            return self.wishes.add(wish)
        if sum(segment.n_bytes(each) for each in self.kin.path(record.id)) > self.max_bytes // SHARE:
            self._say_unpinned(wish.path, "it is too large")
        else:
            with self.index.changing():
                self.index.pin(*wish.key, record.id, now())
                self._bound_pins()
        self.wishes.remove(wish)

    def _bound_pins(self) -> None:
        """Let go of pins whose file is gone, and of those not used for the longest time if the others keep too much.
        The index must be changing."""
        left, moment, most = [], now(), self.max_bytes // SHARE
        for pin in self.index.pins():
            if pin.is_over(moment):
                self.index.unpin(pin)
            else:
                left.append(pin)
        while left and (len(left) > MAX_PINS or self.index.n_staying() > most):
            pin = left.pop(0)
            self.index.unpin(pin)
            self._say_unpinned(pin.path, "others were used later")

    def _say_unpinned(self, path: bytes, why: str) -> None:
        most = format_bytes(self.max_bytes // SHARE)
        log.warning("disk cache: %s may be evicted: %s, and all that stays has %s", os.fsdecode(path), why, most)

    def _index_add(self, record: Record, sealed: Sealed, used: int) -> None:
        n_bytes = segment.n_bytes(record)
        self.index.add(Row(record.id, record.parent, record.scope, n_bytes, used, sealed))

    def _remove(self, id: bytes) -> None:
        """The file first: a row without a file is soon found out, a file without a row would not be counted."""
        self._path(id).unlink(missing_ok=True)
        self.index.remove(id)

    def _discard(self, id: bytes, oddities: Counter[str]) -> None:
        """What cannot be removed is left out all the same."""
        with _noting(oddities, "file cannot be removed"):
            self._remove(id)

    def _path(self, id: bytes) -> Path:
        return self.folder / segment.name_of(id)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


@contextlib.contextmanager
def _noting(oddities: Counter[str], what: str) -> Iterator[None]:
    """Go on after an `OSError`; it is told with all other oddities in one line."""
    try:
        yield
    except OSError as error:
        oddities[f"{what} ({error.strerror})"] += 1
