"""Which stream of the context belongs to whom, and what the others still hold.

A *stream* is llama.cpp's place for one sequence's KV; a *slot* is a stream in this table. The table keeps one order:

    [0, n_writing)        sequences that get a token in every step, those of the same LoRA adapters side by side
    [n_writing, n_slots)  sequences that still read their prompt, kept prefixes, and empty streams, mixed

because llama.cpp cuts a split batch wherever the next row's stream is not the one after the last, and each cut costs a
pass over the weights. Keeping the order costs a copy of one sequence's state when a writer comes or goes.

Who needs a stream that still holds what an ended sequence left gets it when that is in the prefix cache (`segments`).
"""

import logging
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from plait.engine import segments
from plait.engine.segments import MIN_FETCHED, Fetch, Segments, Taken
from plait.engine.sequence import BLOCK, NOWHERE, Adapters, Sequence, common_prefix, whole_blocks
from plait.errors import GenerationFailed
from plait.protocol import Cached

MIN_SHARED = 16
"""Shorter prefixes are computed again, unless they are all that is wanted: a copy costs about as much."""
COPY_COST = 64
"""A token is computed about this many times slower than it is copied (measured: 100 to 140), and a copy always takes
all that its source holds: sharing pays when the shared part is at least the source's length divided by this."""


log = logging.getLogger("plait.worker")


class Memory(segments.Memory, Protocol):
    """What the table needs of a context. Streams are numbered from 0."""

    @property
    def can_trim(self) -> bool:
        """False for recurrent models: a state is then used whole or not at all."""
        ...

    @property
    def n_free(self) -> int:
        """Tokens that can be decoded before the memory is full, if no stream comes to its own end before."""
        ...

    def copy(self, src: int, dst: int, n: int) -> None:
        """`dst` becomes the first `n` tokens of `src`, whatever it held."""
        ...

    def swap(self, a: int, b: int) -> None:
        """Two streams exchange what they hold."""
        ...

    def trim(self, stream: int, n: int) -> None:
        """`stream` keeps its first `n` tokens."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """One stream: its sequence if it has one, else the tokens whose KV is still there."""

    owner: Sequence | None = None
    kept: list[int] = field(default_factory=list)
    scope: str = ""
    n_exact: int = 0
    """Of `kept`, as in `Sequence`."""
    is_saved: bool = False
    """`kept` was given to the prefix cache, whatever that had room for."""
    ended_at: float = 0.0
    """When its last sequence ended, on the prefix cache's clock."""
    last_used: int = 0

    @property
    def n_held(self) -> int:
        return self.owner.n_past if self.owner else len(self.kept)


class Match(NamedTuple):
    """The longest known prefix: `n` tokens of a stream, or in RAM."""

    stream: int = NOWHERE
    n: int = 0
    origin: Literal["running", "idle", "ram"] = "ram"


class Wait(NamedTuple):
    """For `reader` to have `n` tokens in the context, or to be gone."""

    reader: Sequence
    n: int

    @property
    def is_over(self) -> bool:
        return self.reader.stream == NOWHERE or self.reader.n_past >= self.n


class Slots:
    """Owns every stream of one context. What ended sequences leave is given up least recently used first."""

    def __init__(self, memory: Memory, n_slots: int, segments: Segments) -> None:
        self.memory = memory
        self.segments = segments
        self.table = [Slot() for _ in range(n_slots)]
        self.n_writing = 0
        self.n_owned = 0
        self.clock = 0

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_free(self) -> bool:
        return self.n_owned < len(self.table)

    def writers(self) -> list[Sequence]:
        """Those who get a token in every step, in ascending order of their streams."""
        return [slot.owner for slot in self.table[: self.n_writing] if slot.owner]

    def readers(self) -> list[Sequence]:
        """Those who still read their prompt, by stream."""
        return [slot.owner for slot in self.table[self.n_writing :] if slot.owner]

    def match(self, seq: Sequence) -> Match:
        """The longest useful prefix of `seq.tokens`; never all of them, since one must be decoded. From RAM, if that is
        longer than what any stream holds; who gave up its slot for lack of cells rather shares those of a stream and
        computes some again, as what comes from RAM takes cells of its own. By the rules, only what carries the bits
        that `seq` would compute."""
        best, wanted = Match(), seq.tokens[:-1]
        for stream, slot in enumerate(self.table):
            n = self._shared(slot, seq, wanted)
            if n > best.n or (n and n == best.n and slot.owner is None):
                best = Match(stream, n, "running" if slot.owner else "idle")
        if seq.group.shares and wanted:
            n = self.segments.find(seq.findable, seq.group.scope, exact=seq.group.rules is not None).n
            is_worth_cells = not seq.has_started or n >= 2 * best.n  # or else it was short of cells, and should share
            if (n >= best.n + MIN_SHARED or n == len(wanted) > best.n) and is_worth_cells:
                return Match(NOWHERE, n, "ram")
        return best

    def fetch(self, seq: Sequence, n_known: int) -> Fetch | None:
        """What is on disk of `seq`, if that is worth waiting for. Asked for once."""
        if seq.n_in_ram is not None or not seq.group.shares:
            return None
        found = self.segments.find(seq.findable, seq.group.scope, exact=seq.group.rules is not None)
        n = found.n + found.n_on_disk
        if n < n_known + MIN_FETCHED or not found.n_on_disk:
            return None
        seq.n_in_ram = found.n
        return self.segments.fetch(seq.tokens[:n] if seq.group.rules else seq.tokens[:-1], seq.group.scope)

    def leader(self, seq: Sequence, n_known: int) -> Wait | None:
        """Who is computing a longer prefix of `seq` right now: waiting is cheaper than computing it twice."""
        wanted = seq.tokens[:-1]
        for reader in self.readers() if self.memory.can_trim else ():
            n = common_prefix(reader.tokens, wanted) if may_share(reader, seq) else 0
            if seq.group.rules:
                n = self._usable(seq, n, reader, will_be_exact(reader))
            if n >= max(n_known, reader.n_past) + MIN_SHARED:
                return Wait(reader, n)
        return None

    @staticmethod
    def _usable(seq: Sequence, n: int, owner: Sequence | None, n_exact: int) -> int:
        """How many of `n` tokens, of which `n_exact` are exact, carry the bits that `seq` would compute by the rules:
        whole blocks of the prompt, or all that a sibling has computed when that is more than the prompt's chunks."""
        if owner and owner.group is seq.group and n >= seq.n_chunked:
            return n
        return whole_blocks(min(n, n_exact, seq.n_chunked)) if seq.group.chunk >= BLOCK else 0

    def _shared(self, slot: Slot, seq: Sequence, wanted: list[int]) -> int:
        if slot.owner is None:
            n = common_prefix(slot.kept, wanted) if seq.group.shares and slot.scope == seq.group.scope else 0
        elif may_share(slot.owner, seq):
            n = min(slot.owner.n_past, common_prefix(slot.owner.tokens, wanted))
        else:
            n = 0
        if n and seq.group.rules:
            n = self._usable(seq, n, slot.owner, slot.owner.n_exact if slot.owner else slot.n_exact)
        is_useful = (n >= MIN_SHARED or n == len(wanted)) and n * COPY_COST >= slot.n_held
        is_possible = self.memory.can_trim or n == slot.n_held
        return n if is_useful and is_possible else 0

    # ── a sequence's way through the table ───────────────────────────────────────────────────────────────────────

    def claim(self, seq: Sequence, source: Match) -> None:
        """Give `seq` a stream that begins with what `source` found. Needs `has_free`."""
        stream = self._place(source)
        slot = self.table[stream]
        n_exact = self._n_exact(source)
        taken = self.segments.take(seq.tokens[: source.n] if source.origin == "ram" else [], seq.group.scope)
        if source.stream != stream or source.n < len(slot.kept):
            self.save(slot, stream)
        if source.origin == "ram":
            source, n_exact = self._restore(stream, seq, source, taken)
        elif source.stream == stream:
            self.memory.trim(stream, source.n)
        else:
            self.memory.copy(source.stream, stream, source.n)
            self._touch(self.table[source.stream])
        slot.owner, slot.kept = seq, []
        seq.stream, seq.n_past, seq.n_exact = stream, source.n, whole_blocks(min(n_exact, source.n))
        if seq.cached is None:
            seq.cached = self._cached(seq, source)
        self.n_owned += 1

    def _n_exact(self, source: Match) -> int:
        if source.stream == NOWHERE:
            return 0
        slot = self.table[source.stream]
        return slot.owner.n_exact if slot.owner else slot.n_exact

    def _restore(self, stream: int, seq: Sequence, source: Match, taken: Taken) -> tuple[Match, int]:
        """Put what was taken from RAM into a stream; what it holds now, and how much of that is exact."""
        self.memory.trim(stream, 0)
        if not taken.parts:
            return Match(), 0
        try:
            self.memory.restore(stream, taken.parts)
        except GenerationFailed as error:
            log.warning("the prefix cache: %s", error.message)
            if not self.memory.can_cut and self.memory.n_free >= source.n:  # or else there was only no room
                self.segments.forget(seq.tokens[: source.n], seq.group.scope)
            return Match(), 0
        return source, taken.n_exact

    def _cached(self, seq: Sequence, source: Match) -> Cached:
        n = min(source.n, seq.n_prompt)
        if source.origin == "ram":
            n_ram = n if seq.n_in_ram is None else min(n, seq.n_in_ram)
            return Cached(ram=n_ram, disk=n - n_ram)
        return Cached(**{source.origin: n})

    def make_room(self, seq: Sequence, source: Match) -> bool:
        """Whether there are cells for the rest of `seq`, and some for those who run. What ended sequences left is
        dropped for it, but not what `seq` begins with; alone, it always has room."""
        n_wanted = len(seq.tokens) - source.n * (source.stream != NOWHERE) + BLOCK * self.n_owned
        return self.free_cells(n_wanted, source.stream) or not self.n_owned

    def free_cells(self, n: int, spared: int = NOWHERE) -> bool:
        """Whether `n` tokens can be decoded, once what ended sequences left is dropped as far as that takes."""
        while self.memory.n_free < n:
            idle = [i for i, slot in enumerate(self.table) if slot.owner is None and slot.kept and i != spared]
            if not idle:
                return False
            stream = min(idle, key=lambda i: self.table[i].last_used)
            self.save(self.table[stream], stream)
            self.drop(self.table[stream], stream)
        return True

    def mark(self, seq: Sequence) -> None:
        """Keep what `seq` has read so far, in the prefix cache."""
        if seq.group.shares:
            self.segments.keep(seq.stream, seq.tokens[: seq.n_past], seq.n_exact, seq.group.scope)

    def save(self, slot: Slot, stream: int) -> None:
        """Keep what an ended sequence left in a stream, in the prefix cache."""
        if slot.owner is None and slot.kept:
            self.segments.keep(stream, slot.kept, slot.n_exact, slot.scope)
            slot.is_saved = True

    def save_one(self, min_age: float = 0.0) -> bool:
        """Keep what one of the sequences left that ended so many seconds ago, once. False: there is none."""
        before = self.segments.clock() - min_age
        for stream, slot in enumerate(self.table):
            if slot.owner is None and slot.kept and not slot.is_saved and slot.ended_at <= before:
                self.save(slot, stream)
                return True
        return False

    def forget(self) -> None:
        """Drop what ended sequences left."""
        for stream, slot in enumerate(self.table):
            if slot.owner is None and slot.kept:
                self.drop(slot, stream)

    def drop(self, slot: Slot, stream: int) -> None:
        slot.kept = []
        self.memory.trim(stream, 0)

    def promote(self, seq: Sequence) -> None:
        """`seq` has read its prompt: it joins the writers."""
        self._exchange(seq.stream, self.n_writing)
        for first, adapters in reversed(self._sets()):
            if adapters > seq.group.adapters:
                self._exchange(seq.stream, first)
        self.n_writing += 1

    def release(self, seq: Sequence) -> None:
        """`seq` ended; what its stream holds may serve others."""
        if seq.stream < self.n_writing:
            for first, _ in self._sets():
                if first > seq.stream:
                    self._exchange(seq.stream, first - 1)
            self.n_writing -= 1
            self._exchange(seq.stream, self.n_writing)
        slot = self.table[seq.stream]
        slot.owner, slot.is_saved, slot.ended_at = None, False, self.segments.clock()
        slot.scope, slot.n_exact = seq.group.scope, seq.n_exact
        slot.kept = seq.tokens[: seq.n_past] if seq.group.shares else []
        if not slot.kept:
            self.memory.trim(seq.stream, 0)
        self._touch(slot)
        seq.stream = NOWHERE
        self.n_owned -= 1

    def _place(self, source: Match) -> int:
        """The stream for a newcomer: the source itself if its tail is no loss, else an empty one, else the oldest."""
        free = [stream for stream, slot in enumerate(self.table) if slot.owner is None]
        if source.stream in free and 2 * source.n >= self.table[source.stream].n_held:
            return source.stream
        others = [stream for stream in free if stream != source.stream] or free
        return min(others, key=lambda stream: (bool(self.table[stream].kept), self.table[stream].last_used))

    def _sets(self) -> list[tuple[int, Adapters]]:
        """The adapters that writers have, ascending, each with the first stream of those who have them."""
        firsts: dict[Adapters, int] = {}
        for stream, seq in enumerate(self.writers()):
            firsts.setdefault(seq.group.adapters, stream)
        return [(first, adapters) for adapters, first in firsts.items()]

    def _exchange(self, a: int, b: int) -> None:
        if a == b:
            return
        self.memory.swap(a, b)
        self.table[a], self.table[b] = self.table[b], self.table[a]
        for stream in (a, b):
            if owner := self.table[stream].owner:
                owner.stream = stream

    def _touch(self, slot: Slot) -> None:
        self.clock += 1
        slot.last_used = self.clock


def will_be_exact(reader: Sequence) -> int:
    """How many tokens will be exact when a prompt has been read."""
    is_exact = reader.n_exact == reader.n_past and reader.group.chunk >= BLOCK
    return whole_blocks(reader.n_chunked) if is_exact else reader.n_exact


def may_share(owner: Sequence, seq: Sequence) -> bool:
    """Siblings always share; others only when both requests allow it, and are of one scope."""
    mine, others = seq.group, owner.group
    return mine is others or (mine.shares and others.shares and mine.scope == others.scope)
