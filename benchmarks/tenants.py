"""Whether the time to an answer tells what another tenant has asked: requests by two API keys to a real server.

In each pair, one tenant asks something new. Then the other asks the same and something that nobody asked, in random
order, and sees how long each takes. The embedded model, on one thread: the less noise there is, the more is told.
"""

import bisect
import random
import time
from collections.abc import Iterator, Sequence

import httpx2

from benchmarks.report import Row
from plait import gguf
from plait.fleet.registry import DEMO, resolve
from tests.serving import Server, serving

N_PAIRS = 1000
N_CONTROL_PAIRS = 200
N_WARM_UP_PAIRS = 20
N_PROMPT = 128
FIRST_WORD = 300
"""Tokens before this are no words."""
KEYS = ("theirs", "ours")

Pair = tuple[float, float]
"""Seconds for what the other tenant has asked, and for what nobody has."""


def rows() -> Iterator[Row]:
    found = measured(N_PAIRS)
    yield Row("another tenant's prompt told by time", either_way(in_pairs(found)), f"of {N_PAIRS:,} pairs", "<= 0.55")
    yield Row("the same, each beside all others", either_way(among_all(found)), "AUC", "<= 0.55")
    control = measured(N_CONTROL_PAIRS, "--cache-shared")
    yield Row("the same, if tenants share", either_way(in_pairs(control)), f"of {N_CONTROL_PAIRS} pairs", ">= 0.9")


def measured(n_pairs: int, *flags: str) -> list[Pair]:
    """The first few warm the server up and do not count."""
    keys = [word for key in KEYS for word in ("--api-key", key)]
    with serving("--threads", "1", *keys, *flags, key=KEYS[1]) as server:
        return pairs(server, N_WARM_UP_PAIRS + n_pairs)[N_WARM_UP_PAIRS:]


def pairs(server: Server, n: int) -> list[Pair]:
    rng, n_vocab = random.Random(1), gguf.skim(resolve(DEMO).path).n_vocab
    found = []
    with client(server, KEYS[0]) as other, client(server, KEYS[1]) as own:
        for _ in range(n):
            asked, fresh = ([rng.randrange(FIRST_WORD, n_vocab) for _ in range(N_PROMPT)] for _ in range(2))
            seconds(other, asked)
            if rng.random() < 0.5:
                found.append((seconds(own, asked), seconds(own, fresh)))
            else:
                of_fresh = seconds(own, fresh)
                found.append((seconds(own, asked), of_fresh))
    return found


def client(server: Server, key: str) -> httpx2.Client:
    """A tenant, on a connection that is kept."""
    return httpx2.Client(base_url=server.url, headers={"x-api-key": key}, timeout=60)


def seconds(tenant: httpx2.Client, prompt: list[int]) -> float:
    """Until the first token, which is all of the answer, is there."""
    began = time.perf_counter()
    answer = tenant.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1, "ignore_eos": True})
    ended = time.perf_counter()
    answer.raise_for_status()
    return ended - began


def in_pairs(found: Sequence[Pair]) -> float:
    """In how many pairs what was asked before came sooner; what slows all down for a while does not disturb this."""
    return sum(asked < fresh for asked, fresh in found) / len(found)


def among_all(found: Sequence[Pair]) -> float:
    """How often something that was asked before comes sooner than something that was not, of any two."""
    times = sorted(fresh for _, fresh in found)
    return sum(len(times) - bisect.bisect_right(times, asked) for asked, _ in found) / len(found) ** 2


def either_way(auc: float) -> float:
    """Slower tells as much as sooner. 0.5: nothing is told."""
    return max(auc, 1 - auc)
