"""The records that this process believes to be on disk, and what hangs on what."""

from collections.abc import Iterable, Iterator

from plait.disk.record import Record


class Kin:
    """Owned by a `Store`. A record may be here whose parent is not: another process had hung it elsewhere."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self.children: dict[bytes, set[bytes]] = {}

    def get(self, id: bytes) -> Record | None:
        return self.records.get(id)

    def add(self, record: Record) -> None:
        self.pop(record.id)
        self.records[record.id] = record
        self.children.setdefault(record.parent, set()).add(record.id)

    def pop(self, id: bytes) -> None:
        """That one alone, if it is here."""
        if record := self.records.pop(id, None):
            siblings = self.children[record.parent]
            siblings.remove(id)
            if not siblings:
                del self.children[record.parent]

    def tree(self, ids: Iterable[bytes]) -> list[bytes]:
        """These, and all that hangs on them, each once."""
        found, left = dict.fromkeys(ids), list(ids)
        while left:
            for child in self.children.get(left.pop(), ()):
                if child not in found:
                    found[child] = None
                    left.append(child)
        return list(found)

    def path(self, id: bytes) -> Iterator[Record]:
        """The record and those before it, as far as they are known."""
        while record := self.records.get(id):
            yield record
            id = record.parent

    def in_order(self) -> list[Record]:
        """Parents before children: a child begins after its parent does."""
        return sorted(self.records.values(), key=lambda record: record.start)


def reachable(records: Iterable[Record]) -> Kin:
    """Those that hang on others down to position 0."""
    kin = Kin()
    for record in sorted(records, key=lambda record: record.start):
        parent = kin.get(record.parent)
        if not record.start or (parent and record.hangs_on(parent)):
            kin.add(record)
    return kin
