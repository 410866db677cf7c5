"""Records whose payload follows from their id, so that whoever reads one knows what it must be."""

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

from plait.disk import Lost, Read, Record, Result, Shelf, Written, address

N_BYTES = 40
PLENTY = 1 << 20


def record(tokens: Sequence[int], parent: Record | None = None, start: int = 0, scope: str = "") -> Record:
    """The end of `tokens`, from `start` on."""
    id = address(scope, tokens, start)
    return Record(id, scope, parent.id if parent else b"", start, array("i", tokens[start:]), 0, N_BYTES)


def payload(id: bytes) -> bytes:
    return hashlib.shake_128(id).digest(N_BYTES)


def shelf(folder: Path, max_bytes: int = PLENTY) -> Shelf:
    return Shelf(folder, "tiny f16", max_bytes)


def finish(shelf: Shelf) -> list[Result]:
    """Everything that comes out of a shelf, which is closed."""
    shelf.close(30.0)
    return shelf.done()


def write(folder: Path, *records: Record, max_bytes: int = PLENTY) -> list[Result]:
    """By a process of its own, so to speak."""
    opened = shelf(folder, max_bytes)
    for each in records:
        opened.write(each, [payload(each.id)])
    return finish(opened)


def served(folder: Path, max_bytes: int = PLENTY) -> dict[bytes, bytes]:
    """What is read after a restart, by id. All that is offered must be read but for what turns out bad."""
    opened = shelf(folder, max_bytes)
    offered = [each.id for each in opened.records()]
    for id in offered:
        opened.read(id)
    results = finish(opened)
    found = {result.record.id: bytes(result.payload) for result in results if isinstance(result, Read)}
    lost = {id for result in results if isinstance(result, Lost) for id in result.ids}
    assert found.keys() | lost >= set(offered)
    return found


def is_right(found: dict[bytes, bytes]) -> bool:
    """Whether each payload is the one that was written under that id."""
    return all(found[id] == payload(id) for id in found)


def ids(results: list[Result], kind: type[Written] | type[Lost] | type[Read]) -> list[bytes]:
    """Whom these results are about."""
    chosen = [result for result in results if isinstance(result, kind)]
    return [id for result in chosen for id in (result.ids if isinstance(result, Lost) else [result.record.id])]


def garble(index: Path) -> None:
    """Let what SQLite quotes of the index in its complaint be no UTF-8."""
    index.write_bytes(
        index.read_bytes().replace(b"CREATE INDEX by_used ON segments", b"CREATE INDEX by_used ON \xccegments")
    )


ROOT = record([1, 2, 3, 4])
CHILD = record([1, 2, 3, 4, 5, 6], ROOT, 4)
COUSIN = record([1, 2, 9], ROOT, 2)
