"""Requests that want other LoRA adapters: all are served in each step, each set by calls of its own."""

from dataclasses import dataclass, field
from itertools import pairwise

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.sequence import Adapters, Group, Sequence
from tests.fakes.context import FakeContext
from tests.fakes.listener import Notebook
from tests.unit.engine.workload import alone

BEGUN: Adapters = ()
ONE: Adapters = (1.0, 0.0)
OTHER: Adapters = (0.0, 1.0)


@dataclass(slots=True, eq=False)
class Heard(Pace):
    """Notes how often it hears of writers."""

    steps: list[float] = field(default_factory=list)

    def heard_decode(self, seconds: float) -> None:
        self.steps.append(seconds)


class Bench:
    """An engine whose context notes its calls."""

    def __init__(self, n_slots: int) -> None:
        self.context = FakeContext(n_slots)
        self.pace = Heard(target=0.1, n_batch=512, n_ubatch=512)
        self.engine = Engine(self.context, n_slots, self.pace)

    def ask(self, prompt: list[int], adapters: Adapters, max_tokens: int = 40) -> Notebook:
        group, heard = Group(adapters=adapters), Notebook()
        Sequence(list(prompt), group, heard, self.context.sampler(), max_tokens)
        self.engine.submit(group)
        return heard

    def step(self) -> list[Adapters]:
        """Those of each call."""
        self.context.calls.clear()
        self.engine.step()
        return [adapters for adapters, _ in self.context.calls]

    def run(self) -> None:
        for _ in range(1000):
            if self.engine.is_idle:
                return
            self.engine.step()
        raise AssertionError("never idle")


def words(n: int, seed: int = 1) -> list[int]:
    return [(i * 7919 + seed * 31) % 997 for i in range(n)]


def writing(bench: Bench, *sets: Adapters) -> list[Notebook]:
    """Requests of which each writes by now."""
    heard = [bench.ask(words(20, seed), adapters) for seed, adapters in enumerate(sets)]
    while not all(each.tokens for each in heard):
        bench.engine.step()
    return heard


def test_every_step_gives_everyone_a_token_whatever_its_adapters() -> None:
    bench = Bench(n_slots=9)
    heard = writing(bench, *[BEGUN, ONE, OTHER] * 3)
    for _ in range(20):
        before = [len(each.tokens) for each in heard]
        assert sorted(bench.step()) == [BEGUN, OTHER, ONE]
        assert [len(each.tokens) for each in heard] == [n + 1 for n in before]


def test_each_says_what_it_would_say_alone() -> None:
    bench = Bench(n_slots=4)
    sets = [BEGUN, ONE, OTHER, ONE, BEGUN, OTHER]
    heard = [bench.ask(words(200), adapters) for adapters in sets]
    bench.run()
    assert [each.tokens for each in heard] == [alone(words(200), 0, 40, -1, adapters)[0] for adapters in sets]
    assert heard[0].tokens != heard[1].tokens != heard[2].tokens


def test_who_reads_a_long_prompt_with_others_keeps_nobody_waiting() -> None:
    bench = Bench(n_slots=2)
    (writer,) = writing(bench, ONE)
    reader = bench.ask(words(1000), OTHER)
    while not reader.tokens:
        before = len(writer.tokens)
        bench.engine.step()
        assert len(writer.tokens) == before + 1


def test_a_step_begins_with_the_adapters_of_the_last_call() -> None:
    bench = Bench(n_slots=4)
    writing(bench, ONE, OTHER, ONE, OTHER)
    calls = [bench.step() for _ in range(6)]
    assert all(before[-1] == after[0] for before, after in pairwise(calls))


def test_writers_of_one_set_are_neighbours_who_come_and_go() -> None:
    bench = Bench(n_slots=6)
    writing(bench, OTHER, ONE, OTHER, BEGUN, ONE, BEGUN)
    bench.step()
    assert sorted(bench.context.calls) == [(BEGUN, [0, 1]), (OTHER, [2, 3]), (ONE, [4, 5])]
    first = bench.engine.slots.writers()[0]
    bench.engine.cancel(first.group)
    bench.step()
    assert sorted(bench.context.calls) == [(BEGUN, [0]), (OTHER, [1, 2]), (ONE, [3, 4])]


def test_what_was_computed_with_other_adapters_is_not_shared() -> None:
    bench = Bench(n_slots=2)
    for adapters, n_cached in [(BEGUN, 0), (ONE, 0), (ONE, 199), (OTHER, 0), (BEGUN, 0), (OTHER, 199)]:
        heard = bench.ask(words(200), adapters, max_tokens=1)
        bench.run()
        assert heard.n_cached == n_cached


def test_a_step_of_several_calls_is_one_step_to_the_pace() -> None:
    bench = Bench(n_slots=4)
    writing(bench, ONE, OTHER, ONE, OTHER)
    bench.pace.steps.clear()
    for _ in range(10):
        assert len(bench.step()) == 2
    assert len(bench.pace.steps) == 10
