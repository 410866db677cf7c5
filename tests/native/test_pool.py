"""The unified layout on a real context: continuations share cells, and who finds none waits and goes on."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from plait.engine.engine import Context as EngineContext
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import Group, Sequence
from plait.errors import GenerationFailed
from plait.llama.context import Context
from plait.llama.model import Model
from tests.fakes.listener import Notebook
from tests.native.conftest import ENGINE

TIE = 0.05
"""Logits that differ by less may change places: who waited has part of its text computed again, in other chunks."""


@dataclass
class Greedy:
    """Chooses the best token, and notes by how much it was the best."""

    context: Context
    margins: list[float] = field(default_factory=list)

    def __call__(self, span: int) -> int:
        logits = self.context.logits(span)
        second, best = np.partition(logits, -2)[-2:]
        self.margins.append(float(best - second))
        return int(logits.argmax())


@dataclass
class Asked:
    heard: Notebook
    greedy: Greedy

    @property
    def certain(self) -> list[int]:
        """What it said before a token that was hardly better than another."""
        margins = iter(self.greedy.margins)
        return list(takewhile(lambda _: next(margins) > TIE, self.heard.tokens))


def words(n: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(4, 260), k=n)


@contextmanager
def pool(model: Model, n_slots: int, n_cells: int) -> Iterator[tuple[Engine, Callable[..., list[Asked]]]]:
    """An engine whose streams share so many cells, and what asks it. To the engine, nothing takes time."""
    with Context(model, ENGINE, n_ctx=n_cells, n_slots=n_slots, n_cells=n_cells) as context:
        pace, segments = Pace(1.0, 256, 256, prompt_seconds=1e-4), Segments(context, 10**9)
        engine = Engine(context, n_slots, pace, segments, clock=lambda: 0.0)

        def ask(prompt: list[int], max_tokens: int, n: int = 1) -> list[Asked]:
            group, asked = Group(), [Asked(Notebook(), Greedy(context)) for _ in range(n)]
            for each in asked:
                Sequence(list(prompt), group, each.heard, each.greedy, max_tokens)
            engine.submit(group)
            return asked

        yield engine, ask


def run(engine: Engine) -> None:
    for _ in range(10_000):
        if engine.is_idle:
            return
        engine.step()
    raise AssertionError("it does not end")


def test_in_half_the_cells_that_they_need_all_say_what_each_says_alone(model: Model) -> None:
    prompts = [words(64, seed) for seed in range(16)]
    with pool(model, 16, n_cells=1024) as (engine, ask):
        crowd = [asked for prompt in prompts for asked in ask(prompt, 64)]
        run(engine)
        assert engine.counts.preempted > 0
    for prompt, asked in zip(prompts, crowd, strict=True):
        with pool(model, 16, n_cells=1024) as (engine, ask):
            (alone,) = ask(prompt, 64)
            run(engine)
        assert len(asked.heard.tokens) == 64
        assert asked.heard.tokens[: len(alone.certain)] == alone.certain
        assert len(alone.certain) > 8


def test_continuations_share_the_cells_of_their_prompt(model: Model) -> None:
    """As libllama has it: what it still takes is what is left of the pool."""
    with pool(model, 33, n_cells=4352) as (engine, ask):
        asked = ask(words(2000, 1), 16, n=32)
        while engine.slots.n_writing < 32:
            engine.step()
        assert engine.context.n_held < 1.3 * engine.slots.table[0].n_held
        assert n_taken(engine.context, 32) == engine.context.n_free
        run(engine)
    assert [len(each.heard.tokens) for each in asked] == 32 * [16]


def n_taken(context: EngineContext, stream: int) -> int:
    """How many tokens an empty stream takes before libllama refuses one."""
    n = 0
    try:
        while True:
            context.decode([(stream, n, [5], False)])
            n += 1
    except GenerationFailed:
        context.trim(stream, 0)
    return n
