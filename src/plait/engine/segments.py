"""The prefix cache: what ended sequences left, kept outside of the context and found again by its tokens.

`Segments` belongs to the engine's thread. It owns one tree a scope and the cells in them (RAM), counts their bytes, and
gives what RAM has no room for to a `Shelf` (disk), from which it comes back before a request starts. What is in RAM is
always all that lies above it, too: what goes first, says `residents`, and nothing in RAM is below it.
"""

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol

from plait.disk import Lost, Read, Record, Result, Why, Wish, Written, address
from plait.engine.radix import Cells, Edge, Step, Tree, prune
from plait.engine.residents import Residents
from plait.engine.sequence import whole_blocks
from plait.engine.shelf import Shelf
from plait.errors import GenerationFailed

MIN_FETCHED = 16
"""Fewer tokens are computed sooner than they are read from a disk."""
FETCH_SECONDS = 10.0
"""So long a request waits for files; then it computes what is in them."""
MAX_QUEUED = 256 * 1024**2
"""Bytes that may wait to be written; a disk that cannot keep up gets less to write."""
COLD_SECONDS = 5.0
"""What is not in a file yet is written so long after it was computed, used or not."""
RETRY_SECONDS = 60.0
"""After the disk failed to write, it is given nothing to write for so long."""

log = logging.getLogger("plait.worker")


class Memory(Protocol):
    """What this needs of a context."""

    @property
    def can_cut(self) -> bool:
        """False: a state is saved whole, and used when it is the whole of a prompt's beginning."""
        ...

    @property
    def state_shape(self) -> str:
        """What of the context a whole state depends on; empty where states are cut."""
        ...

    @property
    def n_buffer_bytes(self) -> int:
        """Of the buffers that states are moved through, which are kept for the next."""
        ...

    def drop_buffers(self) -> None:
        """Keep none."""
        ...

    def save(self, stream: int, start: int) -> Cells:
        """What a stream holds from token `start` on."""
        ...

    def restore(self, stream: int, parts: Sequence[Cells]) -> None:
        """Make these, which follow each other from 0 on, all that a stream holds. Raises `GenerationFailed`, and the
        stream is empty then."""
        ...

    def loaded(self, start: int, n: int, payload: bytearray) -> Cells:
        """Cells whose bytes come from a file. Raises `ValueError` when they cannot be theirs."""
        ...


class Found(NamedTuple):
    """How many leading tokens of a prompt are in RAM, and how many more on disk."""

    n: int = 0
    n_on_disk: int = 0


@dataclass(slots=True, eq=False)
class Fetch:
    """A request's wait for files, which has an end: a disk may stand still."""

    ids: set[bytes]
    """Those that are still to come."""
    clock: Callable[[], float]
    last: float
    """When to give up, on that clock."""

    @property
    def is_over(self) -> bool:
        return not self.ids or self.clock() >= self.last


class Taken(NamedTuple):
    """Cells that follow each other from 0 on; whatever the prefix cache gives up, these stay."""

    parts: list[Cells]
    n_exact: int
    """How many of their first tokens have the bits of a cold run."""


class File(NamedTuple):
    """Which tokens a file holds the cells of: from `start` to the end of `lowest`."""

    lowest: Edge
    start: int

    def edges(self) -> list[Edge]:
        """From the top down. Cutting one leaves its end what it was."""
        return [edge for edge in self.lowest.path() if edge.start >= self.start]


class Segments:
    """`max_bytes` in RAM at most, for cells and the buffers that states are moved through; 0: nothing is kept."""

    def __init__(
        self,
        memory: Memory,
        max_bytes: int = 0,
        shelf: Shelf | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        keeps_exact: bool = True,
    ) -> None:
        """`keeps_exact=False`: what is in files may have other bits than a cold run here, whatever was noted."""
        self.keeps_exact = keeps_exact
        self.memory = memory
        self.clock = clock
        self.max_bytes = max_bytes
        self.shelf = shelf if max_bytes else None
        self.shape = f"{shape}\n" if (shape := memory.state_shape) else ""
        """What the scopes of our files begin with; others' states would not go into this context."""
        self.trees: dict[str, Tree] = {}
        self.in_ram = Residents()
        self.unwritten: dict[Edge, float] = {}
        """Edges whose cells are in no file, and since when."""
        self.files: dict[bytes, File] = {}
        self.writing: set[bytes] = set()
        """Files that cannot be read yet."""
        self.results: deque[Result] = deque()
        """Of the disk, not looked at yet."""
        self.resume_at = 0.0
        """When the disk may be given something to write again."""
        self.fetches: list[Fetch] = []
        for record in self.shelf.records() if self.shelf else ():
            self._list(record)

    # ── what requests ask ────────────────────────────────────────────────────────────────────────────────────────

    def find(self, tokens: list[int], scope: str, *, exact: bool = False) -> Found:
        """What is known of the beginning of `tokens`. `exact`: whole blocks that have the bits of a cold run."""
        if not (tree := self.trees.get(scope)):
            return Found()
        steps = tree.walk(tokens)
        if exact:
            steps = tree.walk(tokens[: whole_blocks(self._n_exact(steps))])
        if not self.memory.can_cut:
            ends = [step.edge for step in steps if step.is_whole and self._is_known(step.edge)]
            n = max((edge.end for edge in ends if edge.cells), default=0)
            return Found(n, max((edge.end for edge in ends), default=0) - n)
        n = sum(step.n for step in takewhile(lambda step: step.edge.cells, steps))
        return Found(n, sum(step.n for step in takewhile(lambda step: self._is_known(step.edge), steps)) - n)

    def _is_known(self, edge: Edge) -> bool:
        return edge.cells is not None or bool(edge.file and edge.file not in self.writing)

    def fetch(self, tokens: list[int], scope: str) -> Fetch:
        """Begin to bring what is on disk of the beginning of `tokens` into RAM."""
        steps = self.trees[scope].walk(tokens)
        if self.memory.can_cut:
            steps = list(takewhile(lambda step: self._is_known(step.edge), steps))
        else:
            steps = [step for step in steps if step.is_whole and self._is_known(step.edge)][-1:]
        edges = [step.edge for step in steps if not step.edge.cells]
        ids = dict.fromkeys(edge.file for edge in edges)
        for id in ids:
            self._read(id)
        fetch = Fetch(set(ids), self.clock, self.clock() + FETCH_SECONDS)
        self.fetches.append(fetch)
        return fetch

    def take(self, tokens: list[int], scope: str) -> "Taken":
        """The cells of these tokens, which are in RAM, for `Memory.restore`."""
        steps = self.trees[scope].walk(tokens) if tokens else []
        n_exact = self._n_exact(steps)
        self._touch([step.edge for step in steps], scope)
        steps = steps if self.memory.can_cut else steps[-1:]
        return Taken([_first(edge, n) for edge, n in steps], n_exact)

    def _n_exact(self, steps: Sequence[Step]) -> int:
        """How many tokens of a walk have the bits of a cold run."""
        n_exact = 0
        for edge, n in steps if self.keeps_exact else ():
            if edge.start == n_exact:
                n_exact += min(n, edge.n_exact)
        return n_exact

    # ── what sequences leave ─────────────────────────────────────────────────────────────────────────────────────

    def keep(self, stream: int, tokens: list[int], n_exact: int, scope: str) -> None:
        """Take from a stream that holds `tokens` what is not in RAM yet, or not with the bits of a cold run. `n_exact`:
        how many of the first tokens have these."""
        n_known = self._n_known(tokens, n_exact, scope)
        if not self.max_bytes or n_known == len(tokens):
            return
        if scope not in self.trees:  # there is no end to the scopes that clients can make up
            self.trees = {other: tree for other, tree in self.trees.items() if tree.root.children}
        tree = self.trees.setdefault(scope, Tree(can_cut=self.memory.can_cut))
        start = n_known if tree.can_cut else 0
        try:
            cells = self.memory.save(stream, start)
        except GenerationFailed as error:
            log.warning("the prefix cache: %s", error.message)
            return
        if cells.n_bytes * len(tokens) > self._room() * cells.n_tokens:
            return  # with what comes before it, it would drive out all others, and itself
        path = tree.reach(tokens)
        edges = [edge for edge in path if edge.start >= start] if tree.can_cut else path[-1:]
        for edge in edges:
            part = _part(n_exact, edge)
            if self.keeps_exact and tree.can_cut and part > edge.n_exact:
                self._empty(edge, scope)
            if not edge.cells:
                edge.n_exact = min(part, edge.n_exact) if edge.file else part  # its cells may come from either
        self._own(edges, cells, scope)
        self._touch(path, scope)
        self._shrink()

    def _n_known(self, tokens: list[int], n_exact: int, scope: str) -> int:
        """How many of the first tokens are in RAM, with the bits of a cold run where a stream has these."""
        if not (self.memory.can_cut and self.keeps_exact and scope in self.trees):
            return self.find(tokens, scope).n

        def is_as_good(step: Step) -> bool:
            edge, n = step
            return edge.cells is not None and min(n, edge.n_exact) >= min(n, n_exact - edge.start)

        return sum(step.n for step in takewhile(is_as_good, self.trees[scope].walk(tokens)))

    def _empty(self, edge: Edge, scope: str) -> None:
        """Forget an edge's cells and their file, for better ones. What the file holds of others is written anew, if it
        is in RAM."""
        if edge.cells:
            self.in_ram.count(-edge.cells.n_bytes, scope)
            edge.cells = None
        if edge.file:
            self._remove(edge.file)
            edge.file = b""

    def forget(self, tokens: list[int], scope: str) -> None:
        """A context does not take the state that is kept of these tokens: it is of no use, nor is its file."""
        edge = self.trees[scope].walk(tokens)[-1].edge
        if edge.file:
            self._remove(edge.file)
        if edge.cells:
            self.unwritten.pop(edge, None)
            self._drop(edge)

    def pin(self, path: bytes, tokens: list[int], scope: str) -> None:
        """What is on disk of these tokens, or will be, stays there while there is a file of that path."""
        tokens = tokens if self.memory.can_cut else tokens[:-1]  # whole states are kept before a prompt's last token
        if self.shelf and tokens:
            self.shelf.pin(Wish(path, self.shape + scope, array("i", tokens), is_whole=not self.memory.can_cut))

    def clear(self) -> None:
        """Forget everything, on disk, too."""
        for fetch in self.fetches:
            fetch.ids.clear()
        self.trees.clear()
        self.in_ram = Residents()
        self.unwritten.clear()
        self.files.clear()
        self.writing.clear()
        self.fetches.clear()
        self.results.clear()
        if self.shelf:
            self.shelf.clear()

    def _own(self, edges: Sequence[Edge], cells: Cells, scope: str) -> None:
        """Give `cells`, which are those of `edges` one after the other, to those of them that have none."""
        for edge in edges:
            own = cells
            if edge is not edges[-1]:
                own, cells = cells.split(len(edge.tokens))
            if not edge.cells:
                edge.cells = own
                self.in_ram.count(own.n_bytes, scope)
                if self.shelf and not edge.file:
                    self.unwritten[edge] = self.clock()

    def _touch(self, path: Sequence[Edge], scope: str) -> None:
        """A path was used just now; those at its end first, so that whatever goes first has nothing below it."""
        for edge in reversed(path):
            if edge.cells:
                self.in_ram.touch(edge, scope)
        if self.shelf:
            self.shelf.use({edge.file for edge in path if edge.file})

    def _room(self) -> int:
        """Bytes that cells may take: at least half, as larger buffers are given back."""
        if self.memory.n_buffer_bytes > self.max_bytes // 2:
            self.memory.drop_buffers()
        return self.max_bytes - self.memory.n_buffer_bytes

    def _shrink(self) -> None:
        n_most = self._room()
        while self.n_bytes > n_most:
            edge = self.in_ram.first()
            if self.unwritten.pop(edge, None) is not None:
                self._write(edge, self.in_ram.scope(edge))
            self._drop(edge)

    def _drop(self, edge: Edge) -> None:
        assert edge.cells
        self.in_ram.count(-edge.cells.n_bytes, self.in_ram.remove(edge))
        edge.cells = None
        prune(edge)

    @property
    def n_bytes(self) -> int:
        """Of cells."""
        return self.in_ram.n_bytes

    @property
    def n_unwritten_bytes(self) -> int:
        """Of cells that are in no file, and on the way to none."""
        return sum(edge.cells.n_bytes for edge in self.unwritten if edge.cells)

    @property
    def may_write(self) -> bool:
        """Not for a while after the disk has failed to."""
        return self.clock() >= self.resume_at

    # ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, min_age: float = COLD_SECONDS, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Take what was read, and write what has been here for so many seconds, while `may_go_on`. To be called now and
        then."""
        if self.max_bytes:
            self._shrink()
        if not self.shelf:
            return
        self.results.extend(self.shelf.done())
        while self.results and (may_go_on() or not isinstance(self.results[0], Read)):
            match result := self.results.popleft():
                case Written(record):
                    self.writing.discard(record.id)
                    self._note_exact(record)
                case Read():
                    self._take(result)
                case Lost(ids, why):
                    self._forget(ids, why)
        before = self.clock() - min_age
        while self.unwritten and may_go_on() and (oldest := next(iter(self.unwritten.items())))[1] <= before:
            if not self._write(oldest[0], self.in_ram.scope(oldest[0])):
                break

    def _write(self, edge: Edge, scope: str) -> bool:
        """Give an edge to the disk, behind those above it. False: it takes no more for now."""
        assert self.shelf
        parent, tokens = b"", array("i")
        for each in edge.path():
            tokens.extend(each.tokens)
            if each.cells and not each.file and not self._put(each, scope, parent, tokens):
                return False
            parent = each.file
        return True

    def _put(self, edge: Edge, scope: str, parent: bytes, tokens: "array[int]") -> bool:
        assert self.shelf
        assert edge.cells
        if self.shelf.n_queued_bytes > MAX_QUEUED or not self.may_write:
            return False
        start, scope = edge.start if self.memory.can_cut else 0, self.shape + scope
        id = address(scope, tokens, start)
        n_exact = edge.n_exact if start else self._n_exact([Step(each, len(each.tokens)) for each in edge.path()])
        record = Record(id, scope, parent if start else b"", start, tokens[start:], n_exact, edge.cells.n_bytes)
        self.shelf.write(record, edge.cells.buffers())
        self.writing.add(id)
        edge.file = id
        self.files[id] = File(edge, start)
        self.unwritten.pop(edge, None)
        return True

    def _list(self, record: Record) -> None:
        """Put what a file holds into its tree."""
        if not record.scope.startswith(self.shape):
            return
        tree = self.trees.setdefault(record.scope.removeprefix(self.shape), Tree(can_cut=self.memory.can_cut))
        before = self.files[record.parent].lowest.path() if record.parent else []
        tokens = [token for edge in before for token in edge.tokens][: record.start] + list(record.tokens)
        if record.start:
            tree.reach(tokens[: record.start])  # an edge has to begin where the file does
        path = tree.reach(tokens)
        for edge in path if tree.can_cut else path[-1:]:
            if edge.start >= record.start and not edge.file:
                edge.file = record.id
                edge.n_exact = _part(record.start + record.n_exact, edge)
        self.files[record.id] = File(path[-1], record.start)

    def _read(self, id: bytes) -> None:
        """Ask for a file, unless it was asked for and has not come yet."""
        assert self.shelf
        if not any(id in fetch.ids for fetch in self.fetches):
            self.shelf.read(id)

    def _take(self, read: Read) -> None:
        """A file has been read: its cells go to the edges that have none, if those above have not lost theirs."""
        record = read.record
        self._settle([record.id])
        if record.id not in self.files or record.id in self.writing:
            return  # it is gone, or will be
        self._note_exact(record)
        edges = self._edges(record.id)
        parent = edges[0].parent
        if self.memory.can_cut and record.start and not (parent and parent.cells):
            return
        try:
            cells = self.memory.loaded(record.start, len(record.tokens), read.payload)
        except ValueError as error:
            log.warning("the prefix cache: %s", error)
            self._remove(record.id)
        else:
            scope = record.scope.removeprefix(self.shape)
            self._own(edges, cells, scope)
            self._touch(edges[-1].path(), scope)
            self._shrink()

    def _edges(self, id: bytes) -> list[Edge]:
        """Those whose cells a file holds, from the top down."""
        return self.files[id].edges() if self.memory.can_cut else [self.files[id].lowest]

    def _note_exact(self, record: Record) -> None:
        """What lies in a file may have been computed by another process, in other chunks."""
        for edge in self._edges(record.id) if record.id in self.files else ():
            if edge.cells and edge.file != record.id:
                continue  # they are better ones
            edge.n_exact = min(edge.n_exact, _part(record.start + record.n_exact, edge))

    def _remove(self, id: bytes) -> None:
        """A file is of no use. Until the disk has said that it is gone, it is not read."""
        assert self.shelf
        self.writing.add(id)
        self.shelf.remove(id)

    def _forget(self, ids: Sequence[bytes], why: Why) -> None:
        """Files that are no more; what has no cells either is not known any longer, and what has may be written anew,
        unless it was for lack of room that it went."""
        self._settle(ids)
        self.writing.difference_update(ids)
        if why == "failed":
            self.resume_at = self.clock() + RETRY_SECONDS
        for id in ids:
            if file := self.files.pop(id, None):
                for edge in reversed(file.edges()):
                    if edge.file == id:
                        edge.file = b""
                        if edge.cells and why in ("failed", "bad"):
                            self.unwritten[edge] = self.clock()
                        prune(edge)

    def _settle(self, ids: Iterable[bytes]) -> None:
        """Nobody waits for these any longer."""
        for fetch in self.fetches:
            fetch.ids.difference_update(ids)
        self.fetches = [fetch for fetch in self.fetches if fetch.ids]


def _part(n: int, edge: Edge) -> int:
    """How many of an edge's tokens are among the first `n` of all."""
    return max(0, min(n - edge.start, len(edge.tokens)))


def _first(edge: Edge, n: int) -> Cells:
    assert edge.cells
    return edge.cells if n == len(edge.tokens) else edge.cells.split(n)[0]
