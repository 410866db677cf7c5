"""Where the time of a step goes: plan, decode, sample, commit, frames, and what the gateway takes meanwhile.

`python -m benchmarks profile [model.gguf]` draws a flame graph of the engine's thread, too: out/flames.svg. The engine
is measured from outside: its methods are replaced by ones that look at the clock.
"""

import itertools
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import ParamSpec, TypeVar

from benchmarks.bench_step import submit
from benchmarks.client import Ask, Client, stream_all
from benchmarks.random_model import random_model
from benchmarks.report import Row, show
from benchmarks.rivals.base import Setup
from benchmarks.rivals.plait import Plait
from benchmarks.rivals.processes import family, get, total
from benchmarks.svg import Flame, flame_graph
from benchmarks.words import words
from benchmarks.workloads.base import Figure
from plait import config, protocol, wire
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Event, Sampling

N_WRITERS = 16
N_PROMPT = 100
N_STEPS = 100
SAMPLE_SECONDS = 0.001
TICKS = os.sysconf("SC_CLK_TCK")
FLAMES = Path(__file__).parent / "out" / "flames.svg"

P = ParamSpec("P")
R = TypeVar("R")


class Spans:
    """Seconds by name, of calls that were wrapped."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[P, R]) -> Callable[P, R]:
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            begin = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - begin

        return measured


class Bench:
    """An engine on a real context, with writers that never end. Their events are framed as a worker frames them."""

    def __init__(self, path: Path) -> None:
        settings = config.Engine()
        self.model = Model(str(path), settings)
        n_ctx = N_PROMPT + 2 * N_STEPS + 64
        self.context = Context(self.model, settings, n_ctx=n_ctx, n_slots=N_WRITERS)
        self.sampler = Sampler(self.model, Sampling(temperature=0.0, seed=0), 0, [])
        pace = Pace(settings.itl_target_ms / 1000, settings.batch_size, self.context.n_ubatch)
        self.engine = Engine(self.context, N_WRITERS, pace)
        self.events: list[Event] = []
        self.spans = Spans()

    def close(self) -> None:
        self.sampler.close()
        self.context.close()
        self.model.close()

    def start(self) -> None:
        """All have read their prompts."""
        sample = self.spans.timed("sample", partial(self.context.sample, self.sampler))
        for i in range(N_WRITERS):
            tokens = self.model.tokenize(words(N_PROMPT, "profile", i), add_special=True, parse_special=False)
            submit(self.engine, i, tokens, self.model.pieces, self.events, sample)
        while self.engine.slots.n_writing < N_WRITERS:
            self.step()

    def step(self) -> None:
        self.engine.step()
        self.frame()

    def frame(self) -> None:
        wire.pack(protocol.encode(self.events))
        self.events.clear()

    def measure(self) -> list[Figure]:
        """Milliseconds per step."""
        spans, engine = self.spans, self.engine
        for owner, method, name in (
            (engine.scheduler, "admit", "plan"),
            (engine.scheduler, "plan", "plan"),
            (self.context, "decode", "decode"),
            (engine, "commit", "commit"),
            (engine, "step", "step"),
            (self, "frame", "frames"),
        ):
            setattr(owner, method, spans.timed(name, getattr(owner, method)))
        spans.seconds.clear()
        for _ in range(N_STEPS):
            self.step()
        seconds = spans.seconds
        seconds["rest"] = seconds["step"] - seconds["plan"] - seconds["decode"] - seconds["commit"]
        seconds["commit"] -= seconds["sample"]
        names = ("plan", "decode", "sample", "commit", "rest", "frames")
        return [Figure(name, seconds[name] / N_STEPS * 1e3, "ms/step") for name in names]


def flames(bench: Bench) -> Flame:
    """What this thread does in some steps, seen from another thread."""
    root, is_over, watched = Flame(), threading.Event(), threading.get_ident()

    def watch() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            root.add(stack(sys._current_frames()[watched]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(N_STEPS):
        bench.step()
    is_over.set()
    watcher.join()
    return root


def stack(frame: FrameType | None) -> list[str]:
    """From a step's beginning inwards."""
    found: list[str] = []
    while frame and frame.f_code is not flames.__code__:
        found.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return found[::-1]


def setup(path: Path, cache: Path) -> Setup:
    return Setup(path, N_WRITERS, N_PROMPT + N_STEPS + 64, cache=cache)


def of_processes(path: Path, client: Client) -> list[Figure]:
    """CPU time per step of the gateway and of the worker's thread that reads and writes, in a server under load."""
    with TemporaryDirectory() as cache, Plait().start(setup(path, Path(cache))) as server:
        gateway, worker = itertools.islice(family(server.pid), 2)
        asks = [Ask(words(N_PROMPT, "process", i), N_STEPS) for i in range(N_WRITERS)]
        before = cpu(f"/proc/{gateway}"), cpu(f"/proc/{worker}/task/{worker}"), steps(server.address)
        client.run(stream_all(server.address, asks))
        time.sleep(1.5)  # the worker tells of its steps once a second
        after = cpu(f"/proc/{gateway}"), cpu(f"/proc/{worker}/task/{worker}"), steps(server.address)
    gateway_seconds, io_seconds, n_steps = (b - a for a, b in zip(before, after, strict=True))
    return [
        Figure("worker's I/O thread", io_seconds / n_steps * 1e3, "ms/step of CPU"),
        Figure("gateway", gateway_seconds / n_steps * 1e3, "ms/step of CPU"),
    ]


def cpu(process: str) -> float:
    """Seconds that a process or a thread has computed."""
    fields = Path(process, "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def steps(address: tuple[str, int]) -> int:
    return total(get(address, "/metrics"), "plait_steps_total")


def profile(path: Path, client: Client, picture: Path) -> list[Figure]:
    """A table's worth, and a flame graph."""
    bench = Bench(path)
    bench.start()
    root = flames(bench)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(flame_graph(f"The engine's thread, {N_WRITERS} writing", root))
    figures = bench.measure()
    bench.close()
    return [*figures, *of_processes(path, client)]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else random_model("135m", "q4_0")
    figures = profile(path, Client(), FLAMES)
    show(f"profile, {path.stem}", [Row(figure.name, figure.value, figure.unit) for figure in figures])


if __name__ == "__main__":
    main()
