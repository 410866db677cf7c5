"""Streams while the engine is killed again and again: how many end as they should, and how long the pauses are.

`python -m benchmarks chaos [KILLS [MODEL]]`: 16 clients ask a model (the demo) without a break; the worker gets SIGKILL
at seeded times, KILLS times (200). Each answer is compared with the one that the same request got before that. The
pauses are those in which a kill fell. A missed goal is exit status 1; that of the texts is for models whose kernels
give the same bits in any batch, as the demo's do.
"""

import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import msgspec

from benchmarks.report import Row, show
from plait.fleet.registry import DEMO
from plait.gateway.admin import ModelView
from tests.serving import free_port

N_CLIENTS = 16
N_TOKENS = 200
STARTS_WITHIN = 60.0
BETWEEN_KILLS = 1.5, 3.0
"""Seconds. Oftener than workers recover, and all that is shown is how a quarantine works off its queue."""


@dataclass
class Heard:
    """One streamed answer, as it came."""

    text: str = ""
    reason: str = ""
    n_tokens: int = 0
    is_done: bool = False
    error: str = ""
    times: list[float] = field(default_factory=list)
    """When it was asked for, and when each of its events came."""

    @property
    def is_right(self) -> bool:
        """One proper end, and no error. What it says is compared with what it said before."""
        return self.is_done and not self.error and self.reason == "length" and self.n_tokens == N_TOKENS

    def pauses(self, kills: Sequence[float]) -> list[float]:
        """Of its gaps, in seconds, those in which a worker was killed."""
        return [
            after - before
            for before, after in itertools.pairwise(self.times)
            if any(before <= kill < after for kill in kills)
        ]


@dataclass
class Chaos:
    """What came of it."""

    expected: list[str]
    """Each client's text while nothing was killed."""
    load_seconds: float
    """What the first worker said of its model."""
    kills: list[float] = field(default_factory=list)
    """When."""
    absences: list[float] = field(default_factory=list)
    """Seconds from each kill to the next worker."""
    heard: list[tuple[int, Heard]] = field(default_factory=list)
    """Each answer, and whose it is."""

    @property
    def pauses(self) -> list[float]:
        return sorted(pause for _, answer in self.heard for pause in answer.pauses(self.kills))


@contextmanager
def server(model: str) -> Iterator[str]:
    """Its prefix cache is its own: what earlier servers left there is no part of what is measured."""
    with tempfile.TemporaryDirectory() as cache:
        yield from running(model, cache)


def running(model: str, cache: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "plait", "serve", "-m", model, "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen([*command, "--cache-dir", cache], stdout=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + STARTS_WITHIN
    try:
        while not is_ready(url):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the server does not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def listen(url: str, client: int) -> Heard:
    """One request: greedy for every second client, seeded for the others."""
    body = {
        "prompt": f"Once upon a time there were {client}",
        "temperature": client % 2,
        "seed": client,
        "max_tokens": N_TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    heard = Heard(times=[time.perf_counter()])
    with httpx2.stream("POST", f"{url}/v1/completions", json=body, timeout=600) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                hear(heard, line[6:])
    return heard


def hear(heard: Heard, data: str) -> None:
    heard.times.append(time.perf_counter())
    if data == "[DONE]":
        heard.is_done = True
        return
    chunk = json.loads(data)
    heard.error += str(chunk.get("error", ""))
    for choice in chunk.get("choices", []):
        heard.text += choice["text"]
        heard.reason += choice["finish_reason"] or ""
    if chunk.get("usage"):
        heard.n_tokens = chunk["usage"]["completion_tokens"]


def keep_asking(url: str, client: int, over: threading.Event) -> list[tuple[int, Heard]]:
    heard = []
    while not over.is_set():
        heard.append((client, listen(url, client)))
    return heard


def kill(url: str, n_kills: int, chaos: Chaos) -> None:
    """Kill the worker so often, at seeded times."""
    rng = random.Random(1)
    for _ in range(n_kills):
        time.sleep(rng.uniform(*BETWEEN_KILLS))
        while not (pid := worker(url)):
            time.sleep(0.02)
        chaos.kills.append(time.perf_counter())
        os.kill(pid, signal.SIGKILL)
        while worker(url) in (None, pid):
            time.sleep(0.005)
        chaos.absences.append(time.perf_counter() - chaos.kills[-1])


def model(url: str) -> ModelView:
    """The only one, as the operator sees it."""
    (found,) = msgspec.json.decode(httpx2.get(f"{url}/admin/models").content, type=list[ModelView])
    return found


def worker(url: str) -> int | None:
    """Its process."""
    return model(url).replicas[0].pid


def load_seconds(url: str) -> float:
    info = model(url).info
    assert info, "it is ready, so it has told"
    return info.load_seconds


def run(url: str, n_kills: int) -> Chaos:
    """Ask, and kill. Raises what any client raised."""
    expected = [listen(url, client).text for client in range(N_CLIENTS)]
    chaos, over = Chaos(expected, load_seconds(url)), threading.Event()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        asking = [pool.submit(keep_asking, url, client, over) for client in range(N_CLIENTS)]
        try:
            kill(url, n_kills, chaos)
        finally:
            over.set()
        for answers in asking:
            chaos.heard += answers.result()
    return chaos


def rows(chaos: Chaos) -> list[Row]:
    heard, pauses = chaos.heard, chaos.pauses
    right = sum(answer.is_right for _, answer in heard) / len(heard)
    same = sum(answer.text == chaos.expected[client] for client, answer in heard) / len(heard)
    return [
        Row("streams", len(heard), "streams"),
        Row("streams that end as they should", right, "share", ">= 0.999"),
        Row("streams with the text of an engine that was not killed, alone", same, "share", ">= 0.999"),
        Row("pauses with a kill in them", len(pauses), "pauses"),
        Row("pause, median", statistics.median(pauses), "s"),
        Row("pause, 95 %", pauses[int(0.95 * len(pauses))], "s"),
        Row("the model's load time", chaos.load_seconds, "s"),
        Row("from a kill to the next worker, median", statistics.median(chaos.absences), "s"),
    ]


def main() -> None:
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with server(sys.argv[2] if len(sys.argv) > 2 else DEMO) as url:
        found = rows(run(url, n_kills))
    show(f"chaos, {n_kills} kills", found)
    if any(row.is_met is False for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
