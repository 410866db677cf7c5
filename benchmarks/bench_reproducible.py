"""Whether the same request gets the same text, and what that costs.

`python -m benchmarks reproducible [workloads [N] | texts | servers | cost]`; without a word, all four. Its exit status
is 1 when a text differed.

- workloads: random work for an engine on the demo model, in which tokens are chosen by a checksum of all logits. Each
  text is compared with that of its request alone on a fresh context. A process for each core, each with one thread.
- texts: 64 requests to a server, each alone and with nothing cached; all at concurrency 16 with nothing cached; again,
  with what is cached then; again, while its worker is killed three times.
- servers: the same requests to servers of the demo model with other numbers of slots, contexts and passes.
- cost: decode steps of 1, 2, 4, 8 and 16 sequences with `--reproducible` and without, by turns.

Texts and cost are of models of a real shape with random weights. The measurements are of one run.
"""

import concurrent.futures
import multiprocessing
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain

import httpx2

from benchmarks.random_model import random_model
from benchmarks.random_workloads import PATIENCE, differing
from benchmarks.report import Row, as_they_come, interleaved, show
from plait import config
from plait.cores import n_cores
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.sequence import Group
from plait.engine.sequence import Sequence as Continuation
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.probe import probe
from plait.llama.sampling import Sampler
from plait.llama.verdict import judge
from plait.protocol import Sampling, Verdict
from tests.native.reproducible import Heard
from tests.serving import Server, serving

QUANTIZATIONS = ("q8_0", "q4_0", "q4_k_m")
SHAPE = "100m"
N_REQUESTS = 64
N_TOGETHER = 16
N_KILLS = 3
N_OUTPUT = 32
WIDTHS = (1, 2, 4, 8, 16)
ROUNDS = 3
N_STEPS = 20
SERVERS = (
    ("--slots", "2", "-c", "1024", "-ub", "512"),
    ("--slots", "4", "-c", "2048", "-ub", "128"),
    ("--slots", "9", "-c", "1024", "-ub", "128"),
)
N_ASKED = 8
"""Requests to each of these."""
SERVE = ("--reproducible", "--slots", str(N_TOGETHER), "-c", "1024", "--probe-seconds", str(PATIENCE))


def workloads(n: int) -> Iterator[Row]:
    shares = [range(first, n, n_cores()) for first in range(n_cores())]
    with concurrent.futures.ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as processes:
        different = list(chain.from_iterable(processes.map(differing, shares)))
    yield Row("random workloads", n, "workloads")
    yield Row("with another text than alone", len(different), "workloads", "<= 0")


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def body(i: int) -> dict[str, object]:
    """Prompts with common beginnings, some of them deep; greedy and seeded by turns."""
    rng = random.Random(i)
    root, n_root = i % 4, rng.choice([5, 40, 64, 130, 130, 300, 600])
    words = [*(f"w{(root * 7919 + 31 * k) % 20_000}" for k in range(n_root)), *(f"w{i}{k}" for k in range(i % 9))]
    return {
        "prompt": " ".join(words),
        "seed": i,
        "temperature": i % 2,
        "max_tokens": N_OUTPUT,
        "ignore_eos": True,
    }


def ask(server: Server, i: int) -> str:
    answer = httpx2.post(f"{server.url}/v1/completions", json=body(i), timeout=600)
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["text"]
    return text


def at_once(server: Server) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(N_TOGETHER) as clients:
        return list(clients.map(partial(ask, server), range(N_REQUESTS)))


def alone(server: Server, i: int) -> str:
    forget(server)
    return ask(server, i)


def forget(server: Server) -> None:
    httpx2.delete(f"{server.url}/admin/cache", timeout=60).raise_for_status()


def pid(server: Server) -> int | None:
    found: int | None = server.get("/admin/models").json()[0]["replicas"][0]["pid"]
    return found


def with_kills(server: Server) -> list[str]:
    """The worker is killed when a quarter, a half and three quarters of the requests have been answered."""
    before = server.metric("plait_requests_total")
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        texts = one.submit(at_once, server)
        for n in range(1, N_KILLS + 1):
            answered = before + N_REQUESTS * n // (N_KILLS + 1)
            while server.metric("plait_requests_total") < answered or not (worker := pid(server)):
                time.sleep(0.02)
            os.kill(worker, signal.SIGKILL)
        return texts.result()


def texts(quantization: str) -> Iterator[Row]:
    path = random_model(SHAPE, quantization)
    with serving("-m", str(path), *SERVE) as server:
        found = server.get("/v1/models").json()["data"][0]["reproducible"]
        print(f"{quantization}: {found['value']} ({found['reason']})", file=sys.stderr)
        expected = [alone(server, i) for i in range(N_REQUESTS)]
        forget(server)
        rounds = {"at once": at_once(server)}
        rounds["again, warm"] = at_once(server)
        forget(server)
        rounds[f"with {N_KILLS} kills"] = with_kills(server)
        n_resumed = server.metric("plait_resumed_total")
    yield Row(f"{quantization}: different texts of {N_REQUESTS} requests", len(set(expected)), "texts")
    for name, said in rounds.items():
        n_other = sum(a != b for a, b in zip(expected, said, strict=True))
        yield Row(f"{quantization}: texts that differ, {name}", n_other, "texts", "<= 0")
    yield Row(f"{quantization}: requests that outlived a worker", n_resumed, "requests")


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tell(server: Server, i: int) -> tuple[str, str]:
    """The text of a request to the demo model, and the fingerprint that it came with."""
    prompt = f"{i} " + "Once upon a time there was a cat. " * (1 + i % 4 * 20)
    said = body(i) | {"prompt": prompt, "max_tokens": 64}
    answer = httpx2.post(f"{server.url}/v1/completions", json=said, timeout=600)
    answer.raise_for_status()
    told = answer.json()
    return told["choices"][0]["text"], told["system_fingerprint"]


def servers() -> Iterator[Row]:
    told = []
    for arguments in SERVERS:
        with (
            serving("--reproducible", "-t", "1", *arguments) as server,
            concurrent.futures.ThreadPoolExecutor(N_ASKED) as clients,
        ):
            told.append(list(clients.map(partial(tell, server), range(N_ASKED))))
    n_prints = len({fingerprint for answers in told for _, fingerprint in answers})
    n_other = sum(len({text for text, _ in answers}) > 1 for answers in zip(*told, strict=True))
    yield Row(f"fingerprints of {len(SERVERS)} servers", n_prints, "fingerprints", "<= 1")
    yield Row(f"texts of {N_ASKED} that differ between servers", n_other, "texts", "<= 0")


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def step_seconds(context: Context, model: Model, n: int, rules: Verdict | None) -> float:
    """The median decode step of `n` sequences."""
    for stream in range(context.n_slots):
        context.trim(stream, 0)
    engine = Engine(context, N_TOGETHER, Pace(1.0, 2048, context.n_ubatch), shares=False, rules=rules)
    rng, greedy = random.Random(n), Sampler(model, Sampling(temperature=0.0, seed=0), 0, [])
    for _ in range(n):
        prompt, group = [rng.randrange(300, model.n_vocab) for _ in range(100)], Group(rules=rules)
        Continuation(prompt, group, Heard(), partial(context.sample, greedy), 1000)
        engine.submit(group)
    while engine.slots.n_writing < n:
        engine.step()
    engine.counts.step_seconds.clear()
    for _ in range(N_STEPS):
        engine.step()
    greedy.close()
    return statistics.median(engine.counts.step_seconds)


def cost(quantization: str) -> Iterator[Row]:
    settings = config.Engine()
    with Model(str(random_model(SHAPE, quantization)), settings) as model:
        begin = time.monotonic()
        rules = judge(probe(model, settings, n_slots=N_TOGETHER, seconds=PATIENCE), N_TOGETHER)
        yield Row(f"{quantization}: probe", time.monotonic() - begin, "s")
        if rules.reproducible == "no":
            raise RuntimeError(f"{quantization}: {rules.reason}")
        with Context(model, settings, n_ctx=512, n_slots=rules.n_rows(N_TOGETHER)) as context:
            for n in WIDTHS:
                steps = (partial(step_seconds, context, model, n, said) for said in (None, rules))
                default, padded = interleaved(ROUNDS, *steps)
                yield Row(f"{quantization}: step of {n}, rows {rules.n_rows(n)}", padded / default, "x default")
                yield Row(f"{quantization}: step of {n}, default", default * 1e3, "ms")


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    n_workloads = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    parts = {
        "workloads": workloads(n_workloads),
        "texts": chain.from_iterable(map(texts, QUANTIZATIONS)),
        "servers": servers(),
        "cost": chain.from_iterable(map(cost, QUANTIZATIONS)),
    }
    if word and word not in parts:
        sys.exit(f"there is no part {word}; there are {', '.join(parts)}")
    show("reproducible", as_they_come(chain.from_iterable(part for name, part in parts.items() if word in ("", name))))


if __name__ == "__main__":
    main()
