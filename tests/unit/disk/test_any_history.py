"""Whatever is written, used, evicted and restarted: what is offered can be read, is right, and fits."""

import tempfile
from array import array
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from plait.disk import Lost, Record, Wish, Written, segment
from tests.unit.disk.making import finish, ids, is_right, payload, record, served, shelf

Step = tuple[str, int, int, int]

STEPS = st.tuples(
    st.sampled_from(["write", "write", "write", "use", "read", "pin", "clear", "restart"]), *[st.integers(0, 9)] * 3
)
SCOPES = ("", "ann")


class History:
    """A shelf, and every record that was ever made for it, with all tokens from position 0."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.made: list[tuple[Record, list[int]]] = []
        self.on_disk: set[bytes] = set()
        self.opened = shelf(folder, max_bytes)

    def take(self, step: Step) -> None:
        kind, which, where, what = step
        if kind == "write":
            self.write(which, where, what)
        elif kind == "use" and self.made:
            self.opened.use([self.made[which % len(self.made)][0].id])
        elif kind == "read" and self.made:
            self.opened.read(self.made[which % len(self.made)][0].id)
        elif kind == "pin" and self.made:
            kept, tokens = self.made[which % len(self.made)]
            path = b"/" * (1 + where)  # there is a file of that name
            self.opened.pin(Wish(path, kept.scope, array("i", tokens[: what + 1]), is_whole=what == 0))
        elif kind == "clear" and what == 0:
            self.opened.clear(SCOPES[which % 2])
        elif kind == "restart":
            self.restart()

    def write(self, which: int, where: int, what: int) -> None:
        """A root, or a child that begins somewhere in one of the others."""
        if self.made and where:
            parent, path = self.made[-1 - which % len(self.made)]
            start = parent.end - where % len(parent.tokens)
            tokens = [*path[:start], *range(what, what + 3)]
            new = record(tokens, parent, start, parent.scope)
        else:
            tokens = [what, which]
            new = record(tokens, scope=SCOPES[what % 2])
        self.made.append((new, tokens))
        self.opened.write(new, [payload(new.id)])

    def restart(self) -> None:
        for result in finish(self.opened):
            if isinstance(result, Written):
                self.on_disk.add(result.record.id)
            elif isinstance(result, Lost):
                self.on_disk -= set(ids([result], Lost))
        found = served(self.folder, self.max_bytes)
        assert is_right(found)
        assert found.keys() == self.on_disk
        assert sum(path.stat().st_size for path in self.folder.glob("*.kv")) <= self.max_bytes
        self.opened = shelf(self.folder, self.max_bytes)
        self.check(self.opened.records())

    def check(self, records: list[Record]) -> None:
        seen: dict[bytes, Record] = {}
        for each in records:
            assert not each.start or each.hangs_on(seen[each.parent])
            seen[each.id] = each
        assert seen.keys() == self.on_disk


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, max_size=25), st.integers(1, 12))
def test_whatever_happens_what_is_offered_is_right_and_fits(steps: list[Step], n_files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "0123", n_files * segment.n_bytes(record([1, 2])))
        for step in steps:
            history.take(step)
        history.restart()
        history.opened.close(30.0)
