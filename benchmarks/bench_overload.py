"""More requests than can be served: how many still get their answer, and how soon the others are told.

`python -m benchmarks overload [SECONDS]`: the demo model, first with as many clients as keep it busy, which gives its
capacity, then with once, twice and five times that, by turns, SECONDS (3) each. The load is open: requests come at
seeded random times, whether or not earlier ones were answered. Goodput counts whole answers, without each turn's first
second; the peak is the highest of all, the capacity included. Where there are several cores, the worker has one of its
own: who asks would take its time.
"""

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Row, show
from benchmarks.rivals.processes import family

LOADS = (1, 2, 5)
N_SLOTS = 4
MAX_QUEUE = 16
N_CLIENTS = 2 * N_SLOTS
"""That find the capacity."""
N_TOKENS = 32
WARM_UP_SECONDS = 1.0
N_ROUNDS = 3


@dataclass(frozen=True)
class Told:
    """What came of one request."""

    status: int
    has_retry_after: bool
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@contextmanager
def server() -> Iterator[Path]:
    """The socket of a server with few slots and a short queue, which is ready."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plait.sock"
        # One thread: the gateway and all clients are on this machine, too, and kernels wait for the slowest of several.
        limits = ["--slots", str(N_SLOTS), "--max-queue", str(MAX_QUEUE), "--ctx-size", "512", "--threads", "1"]
        command = [sys.executable, "-m", "plait", "serve", "--listen", f"unix://{path}", *limits]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            try:
                # What it says first, it says when it is ready.
                if not process.stdout.readline():
                    raise RuntimeError("the server does not start")
                pin(process.pid)
                yield path
            finally:
                process.terminate()


def pin(gateway: int) -> None:
    """Leave the last core to the workers: who asks is on this machine only here, and would take their time."""
    *others, last = sorted(os.sched_getaffinity(0))
    workers = [pid for pid in family(gateway) if pid != gateway]
    for pid in (0, gateway):
        os.sched_setaffinity(pid, others or {last})
    for pid in workers:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {last})


async def exchange(path: Path, sent: bytes) -> Told:
    """One request on a connection of its own."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(sent)
        answer = await reader.read()
    finally:
        writer.close()
    ended = time.perf_counter()
    return Told(int(answer.split(b" ", 2)[1]), b"\r\nretry-after: " in answer.lower(), began, ended)


async def ask(path: Path, number: int, heard: list[Told]) -> None:
    body = json.dumps({"prompt": f"{number} children", "max_tokens": N_TOKENS, "ignore_eos": True, "seed": number})
    head = ["POST /v1/completions HTTP/1.1", "host: localhost", "connection: close", "content-type: application/json"]
    heard.append(await exchange(path, "\r\n".join([*head, f"content-length: {len(body)}", "", body]).encode()))


async def leave(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Hang up on all that is not answered."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def capacity(path: Path, seconds: float) -> float:
    """Answers per second when there is always somebody who waits, and never too many."""
    heard: list[Told] = []

    async def keep_asking(client: int) -> None:
        for n in itertools.count():
            await ask(path, client * 100_000 + n, heard)

    began = time.perf_counter()
    clients = [asyncio.create_task(keep_asking(client)) for client in range(N_CLIENTS)]
    await asyncio.sleep(WARM_UP_SECONDS + seconds)
    await leave(clients)
    return goodput(heard, began + WARM_UP_SECONDS, seconds)


async def overload(path: Path, rate: float, seconds: float) -> tuple[list[Told], float]:
    """What was told to so many requests a second, and the goodput."""
    rng, began = random.Random(1), time.perf_counter()
    heard: list[Told] = []
    asked: list[asyncio.Task[None]] = []
    moment = 0.0
    while (moment := moment + rng.expovariate(rate)) < WARM_UP_SECONDS + seconds:
        await asyncio.sleep(began + moment - time.perf_counter())
        asked.append(asyncio.create_task(ask(path, 10_000_000 + len(asked), heard)))
    await leave(asked)
    return heard, goodput(heard, began + WARM_UP_SECONDS, seconds)


def goodput(told: Sequence[Told], begin: float, seconds: float) -> float:
    """Whole answers per second that ended within a time."""
    return sum(one.status == 200 and begin <= one.ended < begin + seconds for one in told) / seconds


def refusals(load: int, told: Sequence[Told]) -> Iterator[Row]:
    refused = [one for one in told if one.status != 200]
    yield Row(f"refused at {load}x", len(refused) / len(told), "share")
    if not refused:
        return
    proper = sum(one.status == 429 and one.has_retry_after for one in refused)
    seconds = sorted(one.seconds for one in refused)
    yield Row(f"of these, 429 with Retry-After at {load}x", proper / len(refused), "share", ">= 1")
    yield Row(f"time of a refusal at {load}x, median", statistics.median(seconds) * 1e3, "ms")
    yield Row(f"time of a refusal at {load}x, 99 %", seconds[int(0.99 * len(seconds))] * 1e3, "ms")
    yield Row(f"time of a refusal at {load}x, the longest", seconds[-1] * 1e3, "ms", "<= 50")


async def measure(path: Path, seconds: float) -> list[Row]:
    most = await capacity(path, seconds)
    heard: dict[int, list[Told]] = {load: [] for load in LOADS}
    rates: dict[int, list[float]] = {load: [] for load in LOADS}
    sent: list[float] = []
    for _ in range(N_ROUNDS):
        for load in LOADS:
            told, rate = await overload(path, load * most, seconds)
            sent.append(len(told) / (WARM_UP_SECONDS + seconds))
            heard[load] += told
            rates[load].append(rate)
    rows = [Row("capacity", most, "answers/s"), Row("sent at most", max(sent), "requests/s")]
    for load in LOADS:
        rows += [Row(f"goodput at {load}x", statistics.median(rates[load]), "answers/s"), *refusals(load, heard[load])]
    goodputs = [statistics.median(rates[load]) for load in LOADS]
    return [*rows, Row(f"goodput at {LOADS[-1]}x, of the peak", goodputs[-1] / max(most, *goodputs), "share", ">= 0.9")]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with server() as path:
        rows = asyncio.run(measure(path, seconds))
    show("overload", rows)


if __name__ == "__main__":
    main()
