"""The prefix cache on real kernels, each figure a ratio of things measured in one run.

`python -m benchmarks prefix [FIGURE ...]`; `--help` tells which there are. A row is told as soon as it is known. What
the cache does to one request's time and to memory is measured with engines on a 135M-shaped Q4_0 model with random
weights, unless `--model` names another; what one tenant can tell of another, with a server of the embedded model.
"""

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import tenants
from benchmarks.bench_engine import Watch, run
from benchmarks.clock import Timer
from benchmarks.random_model import random_model
from benchmarks.report import Row, as_they_come, show
from plait.config import Engine as Settings
from plait.disk import Shelf
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import Group, Sequence
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Sampling

LONG, NEW = 4000, 8
RAM = 8 * 1024**3
ROUNDS = 2
SYSTEM, N_CONVERSATIONS, OWN, SAID = 1000, 200, 20, 4
N_TALKS, N_TURNS, N_SLOTS = 8, 6, 4
N_CONTINUATIONS, CONTINUED = 32, 24
N_CROWD = 16


class Bench:
    """A model, and engines on contexts of their own."""

    def __init__(self, path: Path, n_threads: int) -> None:
        self.settings = Settings(threads=n_threads)
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

    def submit(self, engine: Engine, prompt: list[int], max_tokens: int = 1, n: int = 1) -> list[Sequence]:
        group, context = Group(), engine.context
        assert isinstance(context, Context)
        sample = partial(context.sample, self.greedy)
        for _ in range(n):
            Sequence(list(prompt), group, Watch(), sample, max_tokens)
        engine.submit(group)
        return group.members

    def ask(self, engine: Engine, prompt: list[int], max_tokens: int = 1) -> list[int]:
        """All tokens."""
        (seq,) = self.submit(engine, prompt, max_tokens)
        run(engine)
        return seq.tokens

    def seconds(self, engine: Engine, prompt: list[int]) -> float:
        """To the first token."""
        begin = time.perf_counter()
        (seq,) = self.submit(engine, prompt)
        run(engine)
        assert isinstance(seq.listener, Watch)
        return seq.listener.times[0] - begin


# ── the same prompt again ────────────────────────────────────────────────────────────────────────────────────────────


def first_token(bench: Bench) -> Iterator[Row]:
    times = [first_tokens(bench) for _ in range(ROUNDS)]
    yield Row(f"first token of {LONG:,} tokens, cold", statistics.median(cold for cold, *_ in times), "s")
    ram = statistics.median(ram / cold for cold, ram, _ in times)
    yield Row("the same with its beginning in RAM", ram, "of cold", "<= 0.03")
    disk = statistics.median(disk / cold for cold, _, disk in times)
    yield Row("on disk, after a restart", disk, "of cold", "<= 0.06")


def first_tokens(bench: Bench) -> tuple[float, float, float]:
    """Seconds to the first token of a long prompt: cold, its beginning in RAM, and on disk after a restart."""
    prompt = bench.words(LONG)
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder), "benchmark", RAM)
        with bench.engine(1, LONG + 256, shelf=shelf) as engine:
            bench.ask(engine, bench.words(128))
            cold = bench.seconds(engine, prompt + bench.words(NEW))
            bench.ask(engine, bench.words(64))
            ram = bench.seconds(engine, prompt + bench.words(NEW))
            assert engine.counts.cached_tokens.ram >= LONG
            engine.close()
            shelf.close(60)
        shelf = Shelf(Path(folder), "benchmark", RAM)
        with bench.engine(1, LONG + 256, shelf=shelf) as engine:
            disk = bench.seconds(engine, prompt + bench.words(NEW))
            assert engine.counts.cached_tokens.disk >= LONG
            shelf.close(60)
    return cold, ram, disk


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────────


def one_system_prompt(bench: Bench) -> Iterator[Row]:
    """How often the bytes of a system prompt are there that many conversations begin with. The last token that each
    says is not decoded."""
    system = bench.words(SYSTEM)
    with bench.engine(N_SLOTS, 2 * SYSTEM) as engine:
        for _ in range(N_CONVERSATIONS):
            bench.submit(engine, system + bench.words(OWN), SAID)
        run(engine)
        n_bytes = kept_bytes(engine)
        bench.ask(engine, bench.words(100))
        token_bytes = (kept_bytes(engine) - n_bytes) / 100
    n_copies = (n_bytes / token_bytes - N_CONVERSATIONS * (OWN + SAID - 1)) / SYSTEM
    yield Row(f"{N_CONVERSATIONS} conversations hold their {SYSTEM:,} tokens", n_copies, "times", "<= 1.01")


def kept_bytes(engine: Engine) -> int:
    """In RAM, when all that ended is there."""
    while engine.tidy():
        pass
    return engine.segments.n_bytes


def turns(bench: Bench) -> Iterator[Row]:
    """Prompt tokens that conversations compute which all go on at once, by those that are new: of every later turn,
    what its user says and the last token of the answer before, which was not decoded."""
    n_new = N_TALKS * (100 + (N_TURNS - 1) * (1 + 30))
    with bench.engine(N_SLOTS, 2048) as engine:
        talking = {bench.submit(engine, bench.words(100), 20)[0]: 1 for _ in range(N_TALKS)}
        while talking:
            engine.step()
            for seq in [seq for seq in talking if seq.reason]:
                if (turn := talking.pop(seq)) < N_TURNS:
                    talking[bench.submit(engine, seq.tokens + bench.words(30), 20)[0]] = turn + 1
        computed, cached = engine.counts.prompt_tokens / n_new, engine.counts.cached_tokens
    yield Row(f"{N_TALKS} conversations of {N_TURNS} turns in {N_SLOTS} slots", computed, "of the new tokens", "<= 1.0")
    yield Row("what they went on from, in RAM and not in a slot", cached.ram / (cached.ram + cached.idle), "share")


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def continuations(bench: Bench) -> Iterator[Row]:
    """Cells that continuations of a long prompt take at the most, by those of one alone."""
    n_cells = LONG + 256 + N_CONTINUATIONS * 64
    with bench.engine(N_CONTINUATIONS, LONG + 256, n_cells=n_cells) as engine:
        bench.submit(engine, bench.words(LONG), CONTINUED, N_CONTINUATIONS)
        most = n_together = 0
        while not engine.is_idle:
            engine.step()
            most, n_together = max(most, engine.context.n_held), max(n_together, engine.slots.n_writing)
    assert n_together == N_CONTINUATIONS, f"only {n_together} wrote together"
    name = f"{N_CONTINUATIONS} continuations of {LONG:,} tokens, unified"
    yield Row(name, most / (LONG + CONTINUED - 1), "of one's cells", "<= 1.3")


def half_a_pool(bench: Bench) -> Iterator[Row]:
    """How many requests say what they say alone in a pool of half the size that they need, and how many times somebody
    had to wait. Random weights nearly tie, and in a pool a row's last bits depend on its neighbours: one may differ."""
    prompts = [bench.words(100) for _ in range(N_CROWD)]
    with bench.engine(N_CROWD, 256, n_cells=N_CROWD * 150 // 2) as engine:
        crowd = [bench.submit(engine, prompt, 50)[0] for prompt in prompts]
        run(engine)
        n_preempted, alone = engine.counts.preempted, []
        for prompt in prompts:
            engine.forget()
            alone.append(bench.ask(engine, prompt, 50))
    n_same = sum(seq.tokens == tokens for seq, tokens in zip(crowd, alone, strict=True))
    yield Row(f"{N_CROWD} requests in half a pool, same text as alone", n_same, f"of {N_CROWD}")
    yield Row("preempted meanwhile", n_preempted, "times")


FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "first-token": first_token,
    "system-prompt": one_system_prompt,
    "turns": turns,
    "continuations": continuations,
    "half-a-pool": half_a_pool,
    "tenants": lambda _: tenants.rows(),
}


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Those of the figures that are asked for, as far as there is time to begin with them."""
    path = Path(options.model) if options.model else random_model("135m", "q4_0")
    bench, timer, left = Bench(path, options.threads), Timer(options.minutes * 60), list(options.figures or FIGURES)
    while left and timer.allows(0):
        yield from FIGURES[left.pop(0)](bench)
    if left:
        yield Row(f"not begun after {options.minutes:g} minutes: {', '.join(left)}", len(left), "figures", "<= 0")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks prefix", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"one of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--model", help="a GGUF file instead of the random model")
    parser.add_argument("--threads", type=int, default=0, help="of the engines; 0: all cores; beside other work, 1")
    parser.add_argument("--minutes", type=float, default=8.0, help="no figure is begun later than that")
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    show("prefix", as_they_come(rows(asked())))


if __name__ == "__main__":
    main()
