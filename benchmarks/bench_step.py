"""Python's own time per step: everything but the kernels, at 1, 8 and 32 writing sequences on a fake context.

What a step does besides decoding: plan, rows, sampling's call, stop strings and characters, events, and their encoding
for the socket. The fake samples in no time, and costs little itself.
"""

import gc
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from functools import partial

from benchmarks.report import Row, show
from plait import protocol, wire
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.radix import Cells
from plait.engine.sequence import Adapters, Group, Sequence
from plait.protocol import Event
from plait.text.stream import TextStream
from plait.worker.session import Choice, Work

N_STEPS = 2000
PIECES = [f" word{i}".encode() for i in range(1000)]


class NoContext:
    """Holds nothing, computes nothing."""

    can_trim = True
    can_cut = True
    state_shape = ""
    n_free = 2**31
    n_held = 0
    n_buffer_bytes = 0

    def decode(self, spans: Rows[tuple[int, int, list[int], bool]]) -> None: ...

    def use_threads(self, *wishes: int) -> None: ...

    def use_adapters(self, adapters: Adapters) -> None: ...

    def copy(self, src: int, dst: int, n: int) -> None: ...

    def swap(self, a: int, b: int) -> None: ...

    def trim(self, stream: int, n: int) -> None: ...

    def drop_buffers(self) -> None: ...

    def save(self, stream: int, start: int) -> Cells:
        raise NotImplementedError("it holds nothing")

    def restore(self, stream: int, parts: Rows[object]) -> None: ...

    def loaded(self, start: int, n: int, payload: bytearray) -> Cells:
        raise NotImplementedError("it holds nothing")


def seconds_per_step(n: int, stops: tuple[str, ...]) -> float:
    """The median step of `n` sequences, events encoded and framed."""
    engine = Engine(NoContext(), n, Pace(target=0.1, n_batch=2048, n_ubatch=512))
    events: list[Event] = []
    for i in range(n):
        submit(engine, i, [i, 1, 2], PIECES, events, partial(next_token, i), stops)
    engine.step()
    return statistics.median(step(engine, events) for _ in range(N_STEPS))


def submit(
    engine: Engine,
    i: int,
    prompt: list[int],
    pieces: list[bytes],
    events: list[Event],
    sample: Callable[[int], int],
    stops: tuple[str, ...] = (),
) -> None:
    """Submit a request that never ends, and whose events are put into a list."""
    work = Work(i, 0.0, prompt, [], events.append, Group())
    listener = Choice(work, 0, TextStream(stops), pieces, lambda: None, leads=True)
    Sequence(work.prompt, work.group, listener, sample, max_tokens=N_STEPS * 2)
    engine.submit(work.group)


def step(engine: Engine, events: list[Event]) -> float:
    begin = time.perf_counter()
    engine.step()
    wire.pack(protocol.encode(events))
    events.clear()
    return time.perf_counter() - begin


def next_token(i: int, span: int) -> int:
    return (i * 31 + span) % 1000


def main() -> None:
    gc.disable()
    rows = []
    for n in (1, 8, 32):
        goal = "<= 0.3" if n == 32 else ""
        rows.append(Row(f"{n} sequences", seconds_per_step(n, ()) * 1e3, "ms/step", goal))
        rows.append(
            Row(f"{n} sequences, 2 stop strings", seconds_per_step(n, ("\n\n", "User:")) * 1e3, "ms/step", goal)
        )
    show("step", rows)


if __name__ == "__main__":
    main()
