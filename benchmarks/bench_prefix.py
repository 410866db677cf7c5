"""The prefix cache on real kernels, each figure a ratio of things measured by turns in one run.

`python -m benchmarks prefix [model.gguf]`; without a file, a 135M-shaped Q4_0 model with random weights is made.
"""

import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.bench_engine import Watch, run
from benchmarks.random_model import random_model
from benchmarks.report import Row, show
from plait.config import Engine as Settings
from plait.disk import Shelf
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import Group, Sequence
from plait.fleet.registry import DEMO, resolve
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Sampling

LONG, NEW = 4000, 8
RAM = 8 * 1024**3
ROUNDS = 3
PAIRS = 1000


class Bench:
    """A model, and engines on contexts of their own."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings()
        self.model = Model(str(path), self.settings)
        self.greedy = Sampler(self.model, Sampling(temperature=0.0, seed=0), 0, [])
        self.rng = random.Random(1)
        self.pace = Pace(self.settings.itl_target_ms / 1000, 2048, 512)

    @contextlib.contextmanager
    def engine(self, n_slots: int, n_ctx: int, *, shelf: Shelf | None = None, n_cells: int = 0) -> Iterator[Engine]:
        with Context(self.model, self.settings, n_ctx=n_ctx, n_slots=n_slots, n_cells=n_cells) as context:
            yield Engine(context, n_slots, self.pace, Segments(context, RAM, shelf))

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(300, self.model.n_vocab) for _ in range(n)]

    def submit(
        self, engine: Engine, prompt: list[int], max_tokens: int = 1, n: int = 1, scope: str = ""
    ) -> list[tuple[Sequence, Watch]]:
        group, context = Group(scope=scope), engine.context
        assert isinstance(context, Context)
        sample = partial(context.sample, self.greedy)
        made = []
        for _ in range(n):
            watch = Watch()
            made.append((Sequence(list(prompt), group, watch, sample, max_tokens), watch))
        engine.submit(group)
        return made

    def ask(self, engine: Engine, prompt: list[int], max_tokens: int = 1, scope: str = "") -> tuple[float, list[int]]:
        """Seconds to the first token, and all tokens."""
        begin = time.perf_counter()
        ((seq, watch),) = self.submit(engine, prompt, max_tokens, scope=scope)
        run(engine)
        return watch.times[0] - begin, seq.tokens

    # ── the same prompt again ────────────────────────────────────────────────────────────────────────────────────

    def first_tokens(self) -> tuple[float, float, float]:
        """Seconds to the first token of a long prompt: cold, its beginning in RAM, and on disk after a restart."""
        prompt = self.words(LONG)
        with tempfile.TemporaryDirectory() as folder:
            shelf = Shelf(Path(folder), "benchmark", RAM)
            with self.engine(1, LONG + 256, shelf=shelf) as engine:
                self.ask(engine, self.words(512))
                cold, _ = self.ask(engine, prompt + self.words(NEW))
                self.ask(engine, self.words(64))
                ram, _ = self.ask(engine, prompt + self.words(NEW))
                engine.close()
                shelf.close(60)
            shelf = Shelf(Path(folder), "benchmark", RAM)
            with self.engine(1, LONG + 256, shelf=shelf) as engine:
                disk, _ = self.ask(engine, prompt + self.words(NEW))
                assert engine.counts.cached_tokens.disk >= LONG
                shelf.close(60)
        return cold, ram, disk

    # ── conversations ────────────────────────────────────────────────────────────────────────────────────────────

    def bytes_of_conversations(self, n: int) -> float:
        """Bytes kept of `n` conversations over one system prompt, by those of the prompt once and of the rests."""
        system = self.words(1000)
        with self.engine(4, 2048) as engine:
            for _ in range(n):
                self.submit(engine, system + self.words(20), 4)
            run(engine)
            while engine.tidy():
                pass
            kept = engine.segments.n_bytes
            self.ask(engine, self.words(100))
            while engine.tidy():
                pass
            token_bytes = (engine.segments.n_bytes - kept) / 100
        return kept / token_bytes / (1000 + n * (20 + 3))

    def recomputed(self) -> float:
        """Prompt tokens computed by 8 conversations of 6 turns in 4 slots, by those that were new."""
        n_new, talks = 0, [self.words(100) for _ in range(8)]
        with self.engine(4, 2048) as engine:
            for turn in range(6):
                for i, talk in enumerate(talks):
                    _, said = self.ask(engine, talk, 20)
                    n_new += len(talk) if not turn else 1 + 30  # the last token said was never decoded
                    talks[i] = said + self.words(30)
            return engine.counts.prompt_tokens / n_new

    # ── other tenants ────────────────────────────────────────────────────────────────────────────────────────────

    def told_by_time(self, n: int, *, shared: bool) -> float:
        """How well the time to the first token tells whether another tenant has asked the same: the part of `n` pairs
        in which the prompt that it asked is answered sooner than one that nobody asked. 0.5: not at all."""
        n_sooner = 0
        with self.engine(2, 512) as engine:
            for _ in range(n):
                theirs, fresh = self.words(100), self.words(100)
                self.ask(engine, theirs, scope="" if shared else "them")
                order = [theirs, fresh] if self.rng.random() < 0.5 else [fresh, theirs]
                seconds = [self.ask(engine, prompt)[0] for prompt in order]
                n_sooner += (seconds[0] < seconds[1]) == (order[0] is theirs)
        return n_sooner / n

    # ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────

    def cells_of_continuations(self, n: int) -> float:
        """Cells that `n` continuations of a long prompt take, by those of one."""
        with self.engine(n, LONG + 256, n_cells=LONG + 256 + n * 64) as engine:
            n_total = engine.context.n_free
            self.submit(engine, self.words(LONG), 24, n)
            while engine.slots.n_writing < n:
                engine.step()
            taken = n_total - engine.context.n_free
        return taken / (LONG + 24)

    def preempted(self) -> tuple[float, float]:
        """Of 16 requests in a pool of half the size that they need: how many said what they say alone, and how many
        times somebody had to wait."""
        prompts = [self.words(200) for _ in range(16)]
        with self.engine(16, 512, n_cells=16 * 300 // 2) as engine:
            crowd = [self.submit(engine, prompt, 100)[0][0] for prompt in prompts]
            run(engine)
            n_preempted = engine.counts.preempted
        alone = []
        for prompt in prompts:
            with self.engine(16, 512, n_cells=16 * 300 // 2) as engine:
                alone.append(self.ask(engine, prompt, 100)[1])
        return sum(seq.tokens == tokens for seq, tokens in zip(crowd, alone, strict=True)) / 16, n_preempted


def main() -> None:
    demo = Bench(resolve(DEMO).path)
    bench = Bench(Path(sys.argv[1]) if len(sys.argv) > 1 else random_model("135m", "q4_0"))
    times = [bench.first_tokens() for _ in range(ROUNDS)]
    ram = statistics.median(ram / cold for cold, ram, _ in times)
    disk = statistics.median(disk / cold for cold, _, disk in times)
    same, n_preempted = bench.preempted()
    show(
        "prefix",
        [
            Row("first token of 4,000 tokens, cold", statistics.median(cold for cold, *_ in times), "s"),
            Row("the same with its beginning in RAM", ram, "of cold", "<= 0.03"),
            Row("on disk, after a restart", disk, "of cold", "<= 0.06"),
            Row("another tenant's prompt told by time", demo.told_by_time(PAIRS, shared=False), "AUC", "<= 0.55"),
            Row("the same, if tenants shared", demo.told_by_time(PAIRS // 5, shared=True), "AUC"),
            Row(
                "200 conversations over 1,000 tokens",
                bench.bytes_of_conversations(200),
                "of each token once",
                "<= 1.01",
            ),
            Row("8 conversations of 6 turns in 4 slots", bench.recomputed(), "of the new tokens", "<= 1.01"),
            Row(
                "32 continuations of 4,000 tokens, unified",
                bench.cells_of_continuations(32),
                "of one's cells",
                "<= 1.3",
            ),
            Row("16 requests in half a pool, same text as alone", same, "of 16"),
            Row("preempted meanwhile", n_preempted, "times"),
        ],
    )


if __name__ == "__main__":
    main()
