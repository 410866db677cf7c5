"""Who decodes how much in the next step. Knows nothing of text, sockets or samplers.

The plan can be read aloud: those who write get one token each; then those who read share what the pace allows, half of
it to the oldest and half to whoever has the least left; before both, newcomers take the free slots, by `turn`.

A plan is a list of batches; each is one `llama_decode` call in a canonical shape: all writers, one row each; or prompt
chunks of equal length, either whole blocks of 64 tokens or what is left behind them, never both. Output that
is known already, because another worker wrote it, is read in shorter chunks (`Sequence.next_border`). Those who want
other LoRA adapters have calls of their own, in the same step.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import NamedTuple, Protocol

from plait.engine.pace import Pace
from plait.engine.sequence import BLOCK, DEEP, Adapters, Group, Sequence
from plait.engine.slots import Match, Slots

MAX_HELD_BACK = 32
"""Requests that one step may find to be waiting for somebody else's prompt; bounds the step's cost, not the queue."""
OVERTAKEN = 32
"""Later arrivals that one level of priority goes before. So there is an end to how many overtake anybody."""
MIN_CHARGE = 16
"""A chunk costs at least as much of the budget as this many tokens: each is a pass over the weights."""
DEEP_CHARGE = 2
"""Tokens of the budget for each of a deep chunk below a block: 32 rows take as long as a block's 64 there."""


class Chunk(NamedTuple):
    """Decode the next `n` tokens of `seq`."""

    seq: Sequence
    n: int


Batch = list[Chunk]
"""One decode call. Rows ascend by stream."""


class Wait(Protocol):
    """What a request waits for before it takes a slot."""

    @property
    def is_over(self) -> bool: ...


@dataclass(slots=True, eq=False)
class Tenant:
    """What one tenant has of the slots."""

    n_running: int = 0
    last_start: int = 0
    """Counts starts; a lower number was longer ago."""


def turn(seq: Sequence, tenant: Tenant) -> tuple[int, int, int, int]:
    """Who waits with the least of these goes next; `tenant` is its own.

    First the tenant with the fewest running, and of several the one whose last start was longest ago; of its requests,
    the one with the fewest running; then by arrival, which priority moves forward or back by a fixed distance: whoever
    waits is passed by ever fewer newcomers, and in the end by none.
    """
    group = seq.group
    return tenant.n_running, tenant.last_start, group.n_running, seq.arrival - OVERTAKEN * group.priority


class Scheduler:
    """Owns the queue and, through `Slots`, who runs where."""

    def __init__(self, slots: Slots, pace: Pace, *, is_continuous: bool = True) -> None:
        """`is_continuous=False`: a prompt does not begin while others write."""
        self.slots = slots
        self.pace = pace
        self.is_continuous = is_continuous
        self.waiting: dict[Group, deque[Sequence]] = {}
        """Never an empty deque; groups in order of arrival."""
        self.held_back: dict[Group, Wait] = {}
        """Of the waiting, those for whom a prefix is just being computed by somebody else, or read from disk."""
        self.tenants: defaultdict[str, Tenant] = defaultdict(Tenant)
        self.n_arrived = 0
        self.n_started = 0
        self.oldest_is_next = True
        self.last_adapters: Adapters = ()
        """Those of the last planned call."""

    @property
    def n_waiting(self) -> int:
        return sum(map(len, self.waiting.values()))

    def add(self, seq: Sequence) -> None:
        self.n_arrived += 1
        seq.arrival = self.n_arrived
        self.waiting.setdefault(seq.group, deque()).append(seq)

    def remove(self, group: Group) -> None:
        """Forget all of `group`, waiting or running."""
        self.waiting.pop(group, None)
        self.held_back.pop(group, None)
        for seq in group.members:
            seq.siblings.clear()
            if seq.stream >= 0:
                self.end(seq)

    def preempt(self) -> None:
        """Whoever came last gives up its slot, and will go on from what the prefix cache then has of it."""
        seq = max((*self.slots.writers(), *self.slots.readers()), key=lambda s: s.arrival)
        self.end(seq)
        self.waiting.setdefault(seq.group, deque()).appendleft(seq)

    def end(self, seq: Sequence) -> None:
        """`seq` is over; its slot is free for the next step."""
        self.slots.release(seq)
        seq.group.n_running -= 1
        self.tenants[seq.group.tenant].n_running -= 1

    # ── admission ────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, may_go_on: Callable[[], bool]) -> list[Sequence]:
        """Give free slots to those who wait, each in its turn, while `may_go_on`: copying states takes time. A request
        that is alone takes it: its siblings need the fewest steps when all begin in the same."""
        admitted: list[Sequence] = []
        self.held_back = {group: wait for group, wait in self.held_back.items() if not wait.is_over}
        n_looked_at = 0
        while self.slots.has_free and n_looked_at < MAX_HELD_BACK and (seq := self._next()):
            if not may_go_on() and seq.group.n_running < self.slots.n_owned:
                break
            source = self.slots.match(seq)
            if wait := self.slots.leader(seq, source.n) or self.slots.fetch(seq, source.n):
                self.held_back[seq.group] = wait
                n_looked_at += 1
            elif not self.slots.make_room(seq, source):
                break
            else:
                self._start(seq, self.slots.match(seq))  # making room may have driven out what was found
                admitted.append(seq)
        return admitted

    def _next(self) -> Sequence | None:
        heads = (
            queue[0] for group, queue in self.waiting.items() if group not in self.held_back and self._may_begin(group)
        )
        return min(heads, key=lambda seq: turn(seq, self.tenants[seq.group.tenant]), default=None)

    def _may_begin(self, group: Group) -> bool:
        """Siblings always may: their prompt has been read."""
        return self.is_continuous or not self.slots.n_writing or group.n_running > 0

    def _start(self, seq: Sequence, source: Match) -> None:
        queue = self.waiting[seq.group]
        queue.popleft()
        if not queue:
            del self.waiting[seq.group]
        self.slots.claim(seq, source)
        seq.group.n_running += 1
        self.n_started += 1
        tenant = self.tenants[seq.group.tenant]
        tenant.n_running += 1
        tenant.last_start = self.n_started
        if seq.is_writing:
            self.slots.promote(seq)

    # ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────

    def plan(self) -> list[Batch]:
        """The next step's decode calls, in order."""
        writers = self.slots.writers()
        decode = [[Chunk(seq, 1) for seq in alike] for alike in by_adapters(writers)] if writers else []
        return self._in_turn(decode + self._batches(self._shares(self.pace.budget(bool(writers)))))

    def _in_turn(self, batches: list[Batch]) -> list[Batch]:
        """Each change of adapters costs libllama a new look at its largest graphs: the calls of one set follow each
        other, in their order, and a step begins with the set that the last one ended with."""

        def place(batch: Batch) -> tuple[bool, Adapters]:
            adapters = adapters_of(batch[0].seq)
            return adapters != self.last_adapters, adapters

        ordered = sorted(batches, key=place)
        if ordered:
            self.last_adapters = adapters_of(ordered[-1][0].seq)
        return ordered

    def _shares(self, budget: int) -> dict[Sequence, int]:
        """Prompt tokens for each reader: block by block, by turns to the oldest and to the one with the least left.

        The oldest is sure of half, so nobody starves; short prompts need not wait for long ones. A last single token
        is left over: it makes its sequence a writer, and is decoded with the others.
        """
        readers = sorted(self.slots.readers(), key=lambda s: s.arrival)
        shares = dict.fromkeys(readers, 0)
        while budget > 0 and readers:
            seq = readers[0] if self.oldest_is_next else min(readers, key=lambda s: s.n_todo - shares[s])
            self.oldest_is_next = not self.oldest_is_next
            position = seq.n_past + shares[seq]
            n = seq.next_border(position) - position
            shares[seq] += n
            budget -= charge(position, n)
            position = seq.n_past + shares[seq]
            if position == len(seq.tokens) or seq.is_decoded(position):
                readers.remove(seq)
        return shares

    def _batches(self, shares: dict[Sequence, int]) -> list[Batch]:
        """Chunks of equal length and adapters go together, as many as one pass over the weights takes."""
        batches: list[Batch] = []
        cuts = [[Chunk(seq, n) for n in self._cut(seq, share)] for seq, share in shares.items()]
        for chunks in zip_longest(*cuts):
            by_shape: dict[tuple[Adapters, int], Batch] = {}
            for chunk in filter(None, chunks):
                by_shape.setdefault((adapters_of(chunk.seq), chunk.n), []).append(chunk)
            for (_, n), equal in by_shape.items():
                width = max(1, self.pace.n_ubatch // n)
                batches += [[chunk] for chunk in equal if is_alone(chunk)]
                others = [chunk for chunk in equal if not is_alone(chunk)]
                batches += [others[i : i + width] for i in range(0, len(others), width)]
        return batches

    def _cut(self, seq: Sequence, n: int) -> list[int]:
        """The next `n` tokens in pieces that end at the sequence's borders; whole blocks go together as one piece, but
        where something is to be kept of them."""
        pieces: list[int] = []
        start, end = seq.n_past, seq.n_past + n
        while start < end:
            piece = min(seq.next_border(start), end) - start
            follows = piece == BLOCK and pieces and pieces[-1] % BLOCK == 0 and start not in seq.group.landmarks
            if follows and pieces[-1] + BLOCK <= self.pace.n_ubatch:
                pieces[-1] += BLOCK
            else:
                pieces.append(piece)
            start += piece
        return pieces

    def read(self, seq: Sequence) -> None:
        """The engine decoded a chunk of `seq`'s prompt; who has only one token to decode is a writer."""
        if seq.n_past in seq.group.landmarks:
            self.slots.mark(seq)
        if seq.is_writing and seq.stream >= self.slots.n_writing:
            self.slots.promote(seq)


def charge(position: int, n: int) -> int:
    """What a chunk of `n` tokens costs of a step's budget."""
    is_dear = position >= DEEP and n < BLOCK
    return max(n * DEEP_CHARGE if is_dear else n, MIN_CHARGE)


def adapters_of(seq: Sequence) -> Adapters:
    return seq.group.adapters


def by_adapters(writers: list[Sequence]) -> list[list[Sequence]]:
    """Those who have the same, together. They are neighbours already, in ascending order: mostly, all are the same."""
    if adapters_of(writers[0]) == adapters_of(writers[-1]):
        return [writers]
    return [list(alike) for _, alike in groupby(writers, key=adapters_of)]


def is_alone(chunk: Chunk) -> bool:
    """Whether the rules of its request want a prompt's chunk in a call of its own."""
    rules = chunk.seq.group.rules
    if rules is None:
        return False
    return chunk.n == 1 or not (rules.tails_together if chunk.n % BLOCK else rules.blocks_together)
