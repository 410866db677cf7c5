"""The engine on real kernels, each figure a ratio of two things measured by turns in one run.

`python -m benchmarks engine [model.gguf]`; without a file, a 135M-shaped Q4_0 model with random weights is made.
"""

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.bare_loop import BareLoop
from benchmarks.random_model import random_model
from benchmarks.report import Row, as_they_come, interleaved, show
from plait.config import Engine as Settings
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.sequence import Group, Reason, Sequence
from plait.errors import GenerationFailed
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Cached, Sampling
from plait.worker.engine_thread import DISK_SECONDS

N_SLOTS = 16
N_CTX = 4096
ROUNDS = 5
TARGET_MS = Settings().itl_target_ms


@dataclass
class Watch:
    """A listener that notes when each token came."""

    times: list[float] = field(default_factory=list)

    def started(self, cached: Cached) -> None: ...

    def progress(self, n_done: int) -> None: ...

    def token(self, token: int) -> bool:
        self.times.append(time.perf_counter())
        return False

    def ended(self, reason: Reason) -> None: ...

    def failed(self, error: GenerationFailed) -> None:
        raise error


class Bench:
    """One context, and an engine with nothing in it for every measurement."""

    def __init__(self, path: Path) -> None:
        settings = Settings()
        self.model = Model(str(path), settings)
        self.context = Context(self.model, settings, n_ctx=N_CTX, n_slots=N_SLOTS)
        self.greedy = Sampler(self.model, Sampling(temperature=0.0, seed=0), 0, [])
        self.bare = BareLoop(self.context.handle, self.model.n_vocab, self.context.n_ubatch)
        self.pace = Pace(TARGET_MS / 1000, 2048, self.context.n_ubatch)
        """Kept, as a server keeps it: what a step takes is learned once."""
        self.rng = random.Random(1)

    def fresh(self, *, shares: bool = True) -> Engine:
        for stream in range(N_SLOTS):
            self.context.trim(stream, 0)
        return Engine(self.context, N_SLOTS, self.pace, shares=shares)

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(300, self.model.n_vocab) for _ in range(n)]

    def ask(self, engine: Engine, prompt: list[int], max_tokens: int, n: int = 1) -> tuple[Group, list[Watch]]:
        group, watches = Group(), [Watch() for _ in range(n)]
        sample = partial(self.context.sample, self.greedy)
        for watch in watches:
            Sequence(list(prompt), group, watch, sample, max_tokens)
        engine.submit(group)
        return group, watches

    # ── half of the slots in use ─────────────────────────────────────────────────────────────────────────────────

    def step_of_eight(self, *, after_leaving: bool) -> float:
        """Seconds per step of 8 writers: alone from the start, or what is left of 16 when 8 random ones are gone."""
        engine = self.fresh(shares=False)
        groups = [self.ask(engine, self.words(128), 1000)[0] for _ in range(16 if after_leaving else 8)]
        while engine.slots.n_writing < len(groups):
            engine.step()
        for group in self.rng.sample(groups, len(groups) - 8):
            engine.cancel(group)
        begin = time.perf_counter()
        for _ in range(20):
            engine.step()
        return (time.perf_counter() - begin) / 20

    # ── unrelated prompts ────────────────────────────────────────────────────────────────────────────────────────

    def unrelated(self, prompts: list[list[int]], n_output: int) -> float:
        engine = self.fresh()
        begin = time.perf_counter()
        for prompt in prompts:
            self.ask(engine, prompt, n_output)
        run(engine)
        return time.perf_counter() - begin

    def bare_loop(self, prompts: list[list[int]], n_output: int) -> float:
        """The same work by the kernels alone."""
        self.fresh()
        begin = time.perf_counter()
        self.bare.write(prompts, n_output)
        return time.perf_counter() - begin

    # ── a shared prefix ──────────────────────────────────────────────────────────────────────────────────────────

    def behind_one_prefix(self, *, shares: bool) -> tuple[float, int]:
        """Seconds, and prompt tokens computed, for 48 requests behind 1,000 shared tokens."""
        engine, prefix = self.fresh(shares=shares), self.words(1000)
        begin = time.perf_counter()
        for _ in range(48):
            self.ask(engine, prefix + self.words(20), 32)
        run(engine)
        return time.perf_counter() - begin, engine.counts.prompt_tokens

    # ── many continuations ───────────────────────────────────────────────────────────────────────────────────────

    def second_tokens(self, n: int) -> float:
        """Seconds until all `n` continuations of 500 tokens have two tokens: the second needs a stream of its own."""
        engine = self.fresh()
        begin = time.perf_counter()
        self.ask(engine, self.words(500), 2, n)
        run(engine)
        return time.perf_counter() - begin

    # ── a long prompt beside writers ─────────────────────────────────────────────────────────────────────────────

    def worst_gap(self) -> float:
        """The longest wait for a token of 4 writers while 3,000 tokens are read."""
        engine = self.fresh()
        watches = [self.ask(engine, self.words(100), 2000)[1][0] for _ in range(4)]
        while engine.slots.n_writing < 4 or len(watches[0].times) < 10:
            engine.step()
        n_before = [len(watch.times) for watch in watches]
        _, (reader,) = self.ask(engine, self.words(3000), 1)
        while not reader.times:
            engine.step()
        gaps = (
            after - before
            for watch, n in zip(watches, n_before, strict=True)
            for before, after in zip(watch.times[n - 1 :], watch.times[n:], strict=False)
        )
        return max(gaps)


def run(engine: Engine) -> None:
    while not engine.is_idle:
        if not engine.step():
            time.sleep(DISK_SECONDS)  # as a worker does


def half_empty(bench: Bench) -> Iterator[Row]:
    contiguous, left_over = interleaved(
        ROUNDS,
        lambda: bench.step_of_eight(after_leaving=False),
        lambda: bench.step_of_eight(after_leaving=True),
    )
    yield Row("8 of 16 slots after random ends, speed of 8 contiguous", contiguous / left_over, "ratio", ">= 0.9")


def unrelated(bench: Bench) -> Iterator[Row]:
    prompts = [bench.words(100) for _ in range(16)]
    bare, served = interleaved(ROUNDS, lambda: bench.bare_loop(prompts, 64), lambda: bench.unrelated(prompts, 64))
    yield Row("16 unrelated, speed of the bare loop", bare / served, "ratio", ">= 0.95")
    yield Row("16 unrelated", 16 * 64 / served, "tokens/s")


def continuations(bench: Bench) -> Iterator[Row]:
    one, eight = interleaved(ROUNDS, lambda: bench.second_tokens(1), lambda: bench.second_tokens(8))
    yield Row("n=8 of 500 tokens, time of n=1", eight / one, "ratio", "<= 1.1")


def long_prompt_beside_writers(bench: Bench) -> Iterator[Row]:
    (gap,) = interleaved(ROUNDS, bench.worst_gap)
    yield Row("4 writers beside 3,000 tokens, worst gap of the target", gap * 1000 / TARGET_MS, "ratio", "<= 2.5")


def one_prefix(bench: Bench) -> Iterator[Row]:
    """Not sharing takes a minute or two, so this is measured once."""
    shared, n_computed = bench.behind_one_prefix(shares=True)
    unshared, _ = bench.behind_one_prefix(shares=False)
    yield Row("48 behind 1,000 tokens, time of not sharing", shared / unshared, "ratio", "<= 0.333")
    yield Row("48 behind 1,000 tokens, computed of what is distinct", n_computed / (1000 + 48 * 20), "ratio", "<= 1.0")


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else random_model("135m", "q4_0")
    bench = Bench(path)
    bench.second_tokens(1)  # warm
    figures = (half_empty, unrelated, continuations, long_prompt_beside_writers, one_prefix)
    show(f"engine, {path.stem}", as_they_come(row for figure in figures for row in figure(bench)))


if __name__ == "__main__":
    main()
