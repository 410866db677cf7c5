"""The index of one folder: which files there are, what hangs on what, and when each was last used. SQLite, in WAL mode.

The files are the truth: what the index lost is read from their headers again. Several processes may have it open.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from plait.disk.pins import Pin
from plait.disk.record import FORMAT, tenant
from plait.disk.segment import Sealed

FILE = "index.sqlite"
BAD = ".bad-"
"""Before the names of an index that was set aside. The next one replaces it, so there is at most one."""
BUSY_SECONDS = 5.0
"""For another process to finish with the index."""
_APPLICATION = 0x506C4B56
_SCHEMA = """
CREATE TABLE about (name TEXT NOT NULL);
CREATE TABLE segments (id BLOB PRIMARY KEY, parent BLOB NOT NULL, scope TEXT NOT NULL, n_bytes INTEGER NOT NULL,
                       used INTEGER NOT NULL, digest BLOB NOT NULL, record BLOB NOT NULL);
CREATE INDEX by_parent ON segments (parent);
CREATE INDEX by_used ON segments (used, n_bytes);
CREATE TABLE pins (path BLOB NOT NULL, scope TEXT NOT NULL, id BLOB NOT NULL, used INTEGER NOT NULL,
                   PRIMARY KEY (path, scope));
"""
_NOT_ITS_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
}


class Row(NamedTuple):
    """What the index says of one file. `used` is in microseconds since 1970."""

    id: bytes
    parent: bytes
    scope: str
    n_bytes: int
    used: int
    sealed: Sealed


T = TypeVar("T", Row, Pin)


class Index:
    """Owned by whoever opened it; may be handed to another thread, and is then that thread's alone.

    Everything here raises `sqlite3.Error`; `is_broken` tells whether the index is to blame.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        """`path` None: in memory, for a folder that cannot be written to."""
        self.path = path
        if path:  # nobody else is to read what people wrote; SQLite gives its other files the same rights
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self.db = sqlite3.connect(
            path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self.db.create_function("tenant", 1, tenant, deterministic=True)
        try:
            with _reading():
                self._patiently(name)
            self._inode = self._found()
        except BaseException:
            self.db.close()
            raise

    @property
    def is_current(self) -> bool:
        """False: another process has set the file aside, or somebody deleted it."""
        return self._found() == self._inode

    def close(self) -> None:
        self.db.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """All or nothing, and no other process changes anything meanwhile."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def rows(self) -> Iterator[Row]:
        for *plain, digest, packed in self.db.execute(
            "SELECT id, parent, scope, n_bytes, used, digest, record FROM segments"
        ):
            yield _sensible((*plain, (packed, digest)), Row)

    def find(self, id: bytes) -> Sealed | None:
        found = self.db.execute("SELECT record, digest FROM segments WHERE id = ?", (id,)).fetchone()
        return Sealed(*found) if found else None

    def add(self, row: Row) -> None:
        values = (*row[:-1], row.sealed.digest, row.sealed.packed)
        self.db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def remove(self, id: bytes) -> None:
        self.db.execute("DELETE FROM segments WHERE id = ?", (id,))

    def touch(self, used: Iterable[tuple[int, bytes]]) -> None:
        """Pairs of when and which."""
        with self.changing():
            self.db.executemany("UPDATE segments SET used = ? WHERE id = ?", used)

    def total(self) -> tuple[int, int]:
        """How many files, and their bytes."""
        n_files, n_bytes = self.db.execute("SELECT COUNT(*), COALESCE(SUM(n_bytes), 0) FROM segments").fetchone()
        return n_files, n_bytes

    def oldest_leaf(self, spared: Sequence[bytes]) -> tuple[bytes, int] | None:
        """Of those on which nothing hangs, and that are neither spared nor pinned, the least recently used of the
        tenant that has the most bytes; where that has none, of all. And its bytes."""
        marks = ", ".join("?" * len(spared))
        found: tuple[bytes, int] | None = self.db.execute(
            f"SELECT id, n_bytes FROM segments AS leaf WHERE id NOT IN ({marks}) AND id NOT IN (SELECT id FROM pins)"
            " AND NOT EXISTS (SELECT 1 FROM segments WHERE parent = leaf.id) ORDER BY tenant(scope) ="
            " (SELECT tenant(scope) FROM segments GROUP BY 1 ORDER BY SUM(n_bytes) DESC LIMIT 1) DESC, used LIMIT 1",
            spared,
        ).fetchone()
        return found

    def pin(self, path: bytes, scope: str, id: bytes, used: int) -> None:
        """In place of what was pinned for that path before."""
        self.db.execute("INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?)", (path, scope, id, used))

    def unpin(self, pin: Pin) -> None:
        self.db.execute("DELETE FROM pins WHERE path = ? AND scope = ?", (pin.path, pin.scope))

    def unpin_scope(self, scope: str | None) -> None:
        """None: all scopes."""
        self.db.execute("DELETE FROM pins WHERE ?1 IS NULL OR scope = ?1", (scope,))

    def pins(self) -> list[Pin]:
        """The one that was not used for the longest time first."""
        return [_sensible(row, Pin) for row in self.db.execute("SELECT path, scope, used FROM pins ORDER BY used")]

    def n_staying(self, spared: Sequence[bytes] = ()) -> int:
        """Bytes of what is pinned or spared, and of all that it hangs on."""
        marks = ", ".join("?" * len(spared))
        (n_bytes,) = self.db.execute(
            f"WITH RECURSIVE staying (id) AS (SELECT id FROM pins UNION SELECT id FROM segments WHERE id IN ({marks})"
            " UNION SELECT segments.parent FROM segments JOIN staying ON segments.id = staying.id)"
            " SELECT COALESCE(SUM(n_bytes), 0) FROM segments WHERE id IN (SELECT id FROM staying)",
            spared,
        ).fetchone()
        return int(n_bytes)

    def below(self, id: bytes) -> list[bytes]:
        """Everything that hangs on a file, directly or not."""
        return self._ids(
            "WITH RECURSIVE below (id) AS (SELECT id FROM segments WHERE parent = ? UNION"
            " SELECT segments.id FROM segments JOIN below ON segments.parent = below.id) SELECT id FROM below",
            id,
        )

    def of_scope(self, scope: str | None) -> list[bytes]:
        """None: of all scopes."""
        if scope is None:
            return self._ids("SELECT id FROM segments")
        return self._ids("SELECT id FROM segments WHERE scope = ?", scope)

    def _ids(self, query: str, *values: bytes | str) -> list[bytes]:
        return [id for (id,) in self.db.execute(query, values)]

    def _found(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)
        except OSError:
            return -1, -1
        return found.st_dev, found.st_ino

    def _patiently(self, name: str) -> None:
        """SQLite waits for others by itself, but not where two make the same index, or one goes as the other comes."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._prepare(name)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_SECONDS / 500)

    def _prepare(self, name: str) -> None:
        for pragma in ("temp_store = MEMORY", "mmap_size = 0", "journal_mode = WAL", "synchronous = NORMAL"):
            self.db.execute(f"PRAGMA {pragma}").fetchall()
        with self.changing():
            if not self.db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA application_id = {_APPLICATION}")
                self.db.execute(f"PRAGMA user_version = {FORMAT}")
            self._is_ours()
            self.db.execute("DELETE FROM about")
            self.db.execute("INSERT INTO about VALUES (?)", (name,))

    def _is_ours(self) -> None:
        said = [self.db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("application_id", "user_version")]
        if said != [_APPLICATION, FORMAT]:
            raise sqlite3.DatabaseError("not an index of this version")


def _sensible(row: tuple[object, ...], kind: type[T]) -> T:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise sqlite3.DatabaseError(f"a row that makes no sense: {error}") from error


def is_broken(error: sqlite3.Error) -> bool:
    """Whether a new index would do better. If not, it is the disk's or another process's fault."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB) & 0xFF not in _NOT_ITS_FAULT


def set_aside(folder: Path) -> None:
    """Make room for a new index. Raises `OSError`."""
    for ending in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / (FILE + ending), folder / (BAD + FILE + ending))
    (folder / (FILE + "-shm")).unlink(missing_ok=True)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What SQLite complains about, it quotes, and Python may not be able to read that."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"its tables make no sense: {error}") from error


def glance(folder: Path) -> tuple[str, int]:
    """The name that the folder was given, and when one of its files was last used, in microseconds since 1970.

    Changes nothing, and needs no place to write. Raises `sqlite3.Error`.
    """
    uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro"
    with _reading(), contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as db:
        found = db.execute("SELECT name, (SELECT COALESCE(MAX(used), 0) FROM segments) FROM about").fetchone()
    if found is None:
        raise sqlite3.DatabaseError("the index names no model")
    name, used = found
    return str(name), int(used)
