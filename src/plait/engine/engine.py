"""The loop: plan → decode → sample → commit. Token ids in, token ids out.

One thread owns the engine, its scheduler, its slots and every sequence. What it needs of a model's context is said
here as `Context`; libllama's and the tests' both fit.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from plait.engine.pace import MORE_ROWS, Pace
from plait.engine.scheduler import Batch, Chunk, Scheduler
from plait.engine.segments import Segments
from plait.engine.sequence import NOWHERE, Adapters, Group, Sequence
from plait.engine.slots import Memory, Slots
from plait.errors import GenerationFailed
from plait.protocol import Cached, Verdict

SETTLED_SECONDS = 2.0
"""While others are served, what a sequence left is kept when nobody has gone on from it for so long: most who do, do it
in the stream itself, and what they leave then is kept once."""
MOVING_SECONDS = 0.02
"""While somebody writes, states are moved for so long between two steps, or for half as long as the writers' part of a
step takes, if that is more; the rest waits for the next."""


class Span(NamedTuple):
    """`tokens` at positions `start` … of `stream`; logits are wanted for the last one, or for none."""

    stream: int
    start: int
    tokens: list[int]
    wants_logits: bool


class Context(Memory, Protocol):
    """A model's context: `Memory`, and the forward pass."""

    @property
    def n_held(self) -> int:
        """Cells that are taken; those that streams share count once."""
        ...

    def decode(self, spans: Rows[tuple[int, int, list[int], bool]]) -> None:
        """Compute, so that logits can be sampled until the next call. Raises `GenerationFailed`."""
        ...

    def use_threads(self, *wishes: int) -> None:
        """From the next decode on, as many as the largest wish; 0 is a wish for as many as it began with."""
        ...

    def use_adapters(self, adapters: Adapters) -> None:
        """From the next decode on; (): as it began. Dear, unless they are those of the last decode."""
        ...


@dataclass(slots=True)
class Counts:
    """What the engine did so far; only ever grows, but for the lists, which their reader empties."""

    prompt_tokens: int = 0
    cached_tokens: Cached = field(default_factory=Cached)
    output_tokens: int = 0
    preempted: int = 0
    steps: int = 0
    step_seconds: list[float] = field(default_factory=list)
    step_rows: list[int] = field(default_factory=list)


class Engine:
    """Runs sequences on one context until they end."""

    def __init__(
        self,
        context: Context,
        n_slots: int,
        pace: Pace,
        segments: Segments | None = None,
        *,
        shares: bool = True,
        is_continuous: bool = True,
        rules: Verdict | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`segments` None: what ended sequences leave is only in the context. `shares=False`: nobody takes a prefix
        that another request computed. `is_continuous=False`: a prompt does not begin while others write. `rules`:
        those that groups may come with; the context has as many streams as they want rows in a decode step."""
        self.context = context
        self.clock = clock
        self.rules = rules
        self.shares = shares
        self.segments = segments or Segments(context)
        self.slots = Slots(context, n_slots, self.segments)
        self.pace = pace
        self.scheduler = Scheduler(self.slots, pace, is_continuous=is_continuous)
        self.counts = Counts()
        self.decode_seconds = 0.0
        """Of this step's calls for those who write: one, if all have the same adapters."""

    @property
    def is_idle(self) -> bool:
        return not self.scheduler.waiting and not self.slots.n_owned

    def submit(self, group: Group) -> None:
        """Queue a request. All members begin with the same prompt: the first computes it, for all.

        Those that have output already go on from there; the prefix that they share is found as any other is.
        """
        group.shares &= self.shares
        if group.pin and group.shares and group.members:
            first = group.members[0]
            prompt = first.tokens[: first.n_prompt]
            self.segments.pin(group.pin.path, prompt[: group.pin.n_tokens], group.scope)
        for begun in (seq for seq in group.members if seq.n_output):
            self.scheduler.add(begun)
        if fresh := [seq for seq in group.members if not seq.n_output]:
            fresh[0].siblings = fresh[1:]
            self.scheduler.add(fresh[0])

    def cancel(self, group: Group) -> None:
        """Forget a request, whatever it is doing. Nothing is said to its listeners any more."""
        self.scheduler.remove(group)

    def forget(self) -> None:
        """Empty the prefix cache; those who run go on."""
        self.segments.clear()
        self.slots.forget()

    def tidy(self) -> bool:
        """Something useful while there is nothing to do. False: nothing is left."""
        self.segments.exchange()
        return self.slots.save_one()

    def close(self) -> bool:
        """Whoever comes later, in another process, finds on disk what is known here. False: the disk has too much to
        write already; there will be more to do when it has less."""
        while self.tidy():
            pass
        self.segments.exchange(min_age=0)
        return not (self.segments.unwritten and self.segments.may_write)

    def step(self) -> int:
        """One token for everyone who writes, some prompt for those who read, a slot for whoever can have one.

        Returns the number of tokens decoded; none while all wait for the disk."""
        begin = self.clock()
        end = begin + max(MOVING_SECONDS, self.pace.decode_seconds / 2)
        self.move(lambda: not self.slots.n_writing or self.clock() < end)
        self.decode_seconds = 0.0
        n_rows = sum(self.run(batch) for batch in self.scheduler.plan())
        if self.decode_seconds:
            self.pace.heard_decode(self.decode_seconds)
        if n_rows:
            self.counts.steps += 1
            self.counts.step_rows.append(n_rows)
            self.counts.step_seconds.append(self.clock() - begin)
        return n_rows

    def move(self, may_go_on: Callable[[], bool]) -> None:
        """Move states while that may go on: from disk, to newcomers' streams, and out of one that an ended sequence
        left."""
        self.segments.exchange(may_go_on=may_go_on)
        for seq in self.scheduler.admit(may_go_on):
            self.start(seq)
        if may_go_on():
            self.slots.save_one(SETTLED_SECONDS)

    def start(self, seq: Sequence) -> None:
        """`seq` has a stream now. Who had one before has been heard of."""
        assert seq.cached
        if not seq.has_started:
            seq.has_started = True
            self.counts.cached_tokens += seq.cached if not seq.n_output else Cached()
            seq.listener.started(seq.cached)

    def make_room(self, batch: Batch) -> None:
        """Where streams share a pool that is full, whoever came last waits, until there is room for the others."""
        while not self.slots.free_cells(sum(chunk.n for chunk in batch if chunk.seq.stream != NOWHERE)):
            self.counts.preempted += 1
            self.scheduler.preempt()

    def run(self, batch: Batch) -> int:
        """One decode call and what follows from it. Returns the number of rows."""
        self.make_room(batch)
        batch = sorted((chunk for chunk in batch if chunk.seq.stream != NOWHERE), key=lambda chunk: chunk.seq.stream)
        if not batch:
            return 0
        is_decode = batch[0].seq.is_writing
        wishes = threads_for(batch)
        self.context.use_threads(*wishes)
        self.context.use_adapters(batch[0].seq.group.adapters)
        below, above = self.padding(batch)
        begin = self.clock()
        try:
            self.context.decode([*below, *(span(chunk, is_decode=is_decode) for chunk in batch), *above])
        except GenerationFailed as error:
            self.drop((*below, *above))
            return self.recover(batch, error)
        self.drop((*below, *above))
        seconds, n_rows = self.clock() - begin, sum(chunk.n for chunk in batch)
        if is_decode:
            self.decode_seconds += seconds
            self.pace.heard_rows(seconds, len(below) + n_rows + len(above))
        else:
            self.pace.heard_prompt(seconds, n_rows)
        self.commit(batch, first=len(below), is_exact=self.is_exact(batch, wishes))
        return n_rows

    def padding(self, batch: Batch) -> tuple[list[Span], list[Span]]:
        """Dummy rows, on the streams below those of `batch` and above: what the rules want single rows to be computed
        with, or what is faster. Each goes behind whatever its stream holds, and is dropped again."""
        rules = next((chunk.seq.group.rules for chunk in batch if chunk.seq.group.rules), None)
        if rules is None:
            return [], self.faster_with(batch)
        n_more = rules.n_rows(len(batch)) - len(batch) if batch[0].n == 1 else 0
        if n_more <= 0:
            return [], []
        first, end = batch[0].seq.stream, batch[-1].seq.stream + 1
        n_slots = len(self.slots.table)
        n_above = min(n_more, max(n_slots, rules.n_rows(n_slots)) - end)
        below, above = range(first - n_more + n_above, first), range(end, end + n_above)
        return [self.dummy(stream) for stream in below], [self.dummy(stream) for stream in above]

    def faster_with(self, batch: Batch) -> list[Span]:
        """Dummy rows above those of a decode step, if that is faster."""
        n, end = len(batch), batch[-1].seq.stream + 1
        is_possible = n > 1 and self.context.can_trim and self.context.n_free >= n + MORE_ROWS
        if not is_possible or not batch[0].seq.is_writing:
            return []
        n_rows = self.pace.n_rows(n, n + len(self.slots.table) - end)
        return [self.dummy(stream) for stream in range(end, end + n_rows - n)]

    def dummy(self, stream: int) -> Span:
        table = self.slots.table
        return Span(stream, table[stream].n_held if stream < len(table) else 0, [0], True)

    def drop(self, dummies: Rows[Span]) -> None:
        for dummy in dummies:
            self.context.trim(dummy.stream, dummy.start)

    def is_exact(self, batch: Batch, wishes: set[int]) -> bool:
        """Whether whole blocks get the bits that they always get. Without rules, nothing is known of that."""
        rules = self.rules
        return rules is not None and (rules.blocks_together or len(batch) == 1) and (rules.any_threads or wishes == {0})

    def commit(self, batch: Batch, first: int = 0, *, is_exact: bool = True) -> None:
        """Book what was computed, choose the next tokens, and move those who go on to where they belong. The batch's
        spans begin at `first`."""
        for seq, n in batch:
            self.counts.prompt_tokens += max(0, min(n, seq.n_prompt - seq.n_past))
            seq.advance(n, is_exact=is_exact)
        for k, (seq, _) in enumerate(batch, first):
            if seq.stream == NOWHERE:
                continue  # a sibling has just failed, and with it the whole request
            if seq.n_todo == 0:
                self.speak(seq, k)
            else:
                seq.listener.progress(seq.n_past)
        for seq, _ in batch:
            if seq.stream == NOWHERE:
                continue
            if seq.reason:
                self.end(seq)
            else:
                self.scheduler.read(seq)

    def speak(self, seq: Sequence, k: int) -> None:
        """The k-th span's logits give `seq` its next token, and its siblings their first."""
        begun = [seq, *seq.siblings]
        seq.siblings = []
        for each in begun:
            try:
                token = each.sample(k)
            except GenerationFailed as error:
                return self.fail(each, error)
            self.counts.output_tokens += 1
            each.take(token)
        for sibling in begun[1:]:
            if sibling.reason:
                sibling.listener.ended(sibling.reason)
            else:
                self.scheduler.add(sibling)

    def end(self, seq: Sequence) -> None:
        assert seq.reason
        self.scheduler.end(seq)
        seq.listener.ended(seq.reason)

    def fail(self, seq: Sequence, error: GenerationFailed) -> None:
        """The whole request of `seq` ends; the others go on."""
        self.cancel(seq.group)
        seq.listener.failed(error)

    def recover(self, batch: Batch, error: GenerationFailed) -> int:
        """A call failed: whoever fails alone, too, is at fault; nobody else loses anything."""
        if len(batch) == 1 or not self.context.can_trim:
            for seq, _ in batch:
                if seq.stream != NOWHERE:
                    self.fail(seq, error)
            return 0
        for seq, _ in batch:
            self.context.trim(seq.stream, seq.n_past)
        return sum(self.run([chunk]) for chunk in batch)


def threads_for(batch: Batch) -> set[int]:
    """What they wish for; 0, and nothing else where one of them has rules: as many as the settings say."""
    groups = [chunk.seq.group for chunk in batch]
    return {0} if any(group.rules for group in groups) else {group.n_threads for group in groups}


def span(chunk: Chunk, *, is_decode: bool) -> Span:
    """Every row of a decode step wants logits: how they are computed depends on how many do."""
    seq, n = chunk
    end = seq.n_past + n
    return Span(seq.stream, seq.n_past, seq.tokens[seq.n_past : end], is_decode or end == len(seq.tokens))
