"""Random work for an engine on a fake context, and what must hold: each gets the text it would get alone."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import Adapters, Group, Sequence
from plait.protocol import MAX_PRIORITY, Verdict
from tests.fakes.context import FakeContext, computed, next_token, spelled
from tests.fakes.listener import Notebook
from tests.fakes.shelf import FakeShelf
from tests.unit.engine.prefix_cache import check_segments

N_CTX = 700
STEPS = 3_000
LEAST_POOL = 320
"""Cells for the longest of the requests that share a pool."""

SETS: list[Adapters] = [(), (1.0, 0.0), (0.5, 2.0), (0.0, 1.0)]

Plant = Callable[[Engine], None]
"""Puts a bug into an engine."""


@dataclass
class Asked:
    """One request: what was asked, and what was heard, per choice."""

    prompt: list[int]
    max_tokens: int
    stop_at: int
    heard: list[Notebook]
    group: Group
    heard_at_cancel: list[tuple[list[int], str | None]] = field(default_factory=list)
    """What each choice had said when the client left; empty if it stayed."""


@dataclass
class Workload:
    """An engine with a random shape, and the requests that it is given over time."""

    rng: random.Random
    can_trim: bool = True
    can_cut: bool = True
    is_unified: bool = False
    rules: Verdict | None = None
    n_sets: int = 1
    """Sets of adapters that requests want."""
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_slots = self.rng.randint(4, 12) if self.is_unified else self.rng.randint(1, 6)
        n_cells = self.rng.randint(LEAST_POOL, 2 * LEAST_POOL) if self.is_unified else None
        n_streams = max(self.n_slots, self.rules.n_rows(self.n_slots)) if self.rules else self.n_slots
        self.context = FakeContext(
            n_streams, can_trim=self.can_trim, can_cut=self.can_cut, n_cells=n_cells, rules=self.rules
        )
        pace = Pace(target=0.1, n_batch=256, n_ubatch=self.rng.choice([64, 128, 256]))
        self.shelf = FakeShelf(self.rng) if self.rng.random() < 0.5 else None
        self.segments = Segments(self.context, self.rng.choice([0, 800, 4000, 10**6]), self.shelf, clock=self.time)
        self.engine = Engine(self.context, self.n_slots, pace, self.segments, rules=self.rules)
        self.now = 0.0
        self.roots = [self.words(self.rng.randint(1, 100 if self.is_unified else 400)) for _ in range(3)]
        self.longest = 120 if self.is_unified else 12

    def time(self) -> float:
        self.now += 0.01
        return self.now

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(997) for _ in range(n)]

    def ask(self) -> None:
        root = self.rng.choice(self.roots)
        prompt = root[: self.rng.randint(1, len(root))] + self.words(self.rng.randint(0, 90))
        group = Group(
            shares=self.rng.random() < 0.8,
            priority=self.rng.randint(-MAX_PRIORITY, MAX_PRIORITY),
            tenant=self.rng.choice(["", "a", "b", "c"]),
            scope=self.rng.choice(["", "", "", "x"]),
            landmarks=frozenset() if self.can_cut else frozenset({self.rng.randint(1, len(prompt)), len(prompt) - 1}),
            rules=self.rules,
            adapters=self.rng.choice(SETS[: self.n_sets]),
        )
        n = self.rng.choice([1, 1, 1, 2, 3, 9])
        asked = Asked(prompt, self.rng.randint(1, self.longest), self.rng.randrange(997), [], group)
        for choice in range(n):
            heard = Notebook(stop_at=asked.stop_at)
            Sequence(
                list(prompt),
                group,
                heard,
                self.context.sampler(choice),
                min(asked.max_tokens, N_CTX - len(prompt)),
                end_tokens=frozenset({990}),
            )
            asked.heard.append(heard)
        self.asked.append(asked)
        self.engine.submit(group)

    def leave(self, asked: Asked) -> None:
        if not asked.heard_at_cancel:
            asked.heard_at_cancel = [(list(heard.tokens), heard.reason) for heard in asked.heard]
            self.engine.cancel(asked.group)

    def run(self, n_requests: int) -> None:
        """Clients leave only while others still come: cancels must not rescue those whom a bug lets starve."""
        for _ in range(STEPS):
            if len(self.asked) < n_requests:
                if self.rng.random() < 0.3:
                    self.ask()
                if self.asked and self.rng.random() < 0.05:
                    self.leave(self.rng.choice(self.asked))
                if self.rng.random() < 0.01:
                    self.engine.forget()
            elif self.engine.is_idle:
                return
            self.engine.step()
            self.check_order()
        raise AssertionError("somebody starves")

    def check_order(self) -> None:
        """Writers of one set are neighbours, and nobody is among them who does not write."""
        slots = self.engine.slots
        writers = slots.writers()
        assert len(writers) == slots.n_writing
        assert [seq.group.adapters for seq in writers] == sorted(seq.group.adapters for seq in writers)

    def check(self) -> None:
        for asked in self.asked:
            for choice, heard in enumerate(asked.heard):
                expected, reason = alone(asked.prompt, choice, asked.max_tokens, asked.stop_at, asked.group.adapters)
                if asked.heard_at_cancel:
                    assert (heard.tokens, heard.reason) == asked.heard_at_cancel[choice], "heard after leaving"
                    assert heard.tokens == expected[: len(heard.tokens)]
                else:
                    assert (heard.tokens, heard.reason) == (expected, reason)
        for stream, slot in enumerate(self.engine.slots.table):
            assert slot.owner is None
            assert spelled(self.context.cells[stream]) == slot.kept, "the table and the context disagree"
        check_segments(self.segments)
        assert self.engine.slots.n_writing == self.engine.slots.n_owned == 0
        assert not any(tenant.n_running for tenant in self.engine.scheduler.tenants.values())


def alone(
    prompt: list[int], seed: int, max_tokens: int, stop_at: int, adapters: Adapters = ()
) -> tuple[list[int], str]:
    """What a choice must say: the plain loop that no scheduler touches."""
    tokens = list(prompt)
    for _ in range(min(max_tokens, N_CTX - len(prompt))):
        tokens.append(next_token(computed(tokens, adapters), seed))
        if tokens[-1] in (stop_at, 990):
            return tokens[len(prompt) :], "stop"
    return tokens[len(prompt) :], "length"


def run_workload(
    seed: int,
    plant: Plant | None = None,
    *,
    can_trim: bool = True,
    can_cut: bool = True,
    is_unified: bool = False,
    rules: Verdict | None = None,
    n_sets: int = 1,
) -> Workload:
    """One whole random workload, checked. `rules`: of all its requests."""
    assert can_trim or not can_cut
    workload = Workload(random.Random(seed), can_trim, can_cut, is_unified, rules, n_sets)
    if plant:
        plant(workload.engine)
    workload.run(n_requests=25)
    workload.check()
    return workload
