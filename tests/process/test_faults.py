"""Real engines that end, or stand still, at every moment of their lives; an offline check of what their clients heard.

K1, K2, K3, K4, K13 and K14 of the faults that a server of models should survive. `tests/fakes/doomed.py` brings them
about at a moment that the worker's own words mark, so that nothing depends on how fast a machine is.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from plait.config import Engine
from plait.errors import Unavailable
from plait.fleet.pool import Plan, Pool
from plait.fleet.process import Launcher, Worker
from plait.fleet.registry import DEMO, resolve
from plait.protocol import Answer, Done, Load, Progress, RawPrompt, Request, Resuming, Sampling, Started, Text
from tests.fakes.doomed import Fate, command
from tests.process.test_workers import pid

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

N = 60
"""Tokens of an answer."""
N_SLOTS = 4
MODEL = resolve(DEMO).path
ENGINE = Engine(ctx_size=512, slots=N_SLOTS, threads=1)


@asynccontextmanager
async def doomed(
    folder: Path, *fates: Fate, n_replicas: int = 1, hang_seconds: float = 60.0
) -> AsyncIterator[tuple[Pool, Launcher]]:
    """A pool of real workers with these fates, one after the other; the next ones live."""
    launcher = Launcher(command(folder, fates))
    plan = Plan(
        name=DEMO,
        path=MODEL,
        n_replicas=n_replicas,
        n_slots=N_SLOTS,
        max_queue=100,
        max_queue_tokens=10_000,
        n_bytes=0,
    )
    start = partial(Worker.start, launcher, Load(str(MODEL), ENGINE, "error"))
    pool = Pool(plan, start, start, hang_seconds)
    try:
        await pool.start()
        yield pool, launcher
    finally:
        await pool.stop(Unavailable("the test is over"))
        launcher.close()


def request(number: int = 0, n: int = 1, prompt: str = "Once upon a time") -> Request:
    """Greedy for every second number, seeded for the others."""
    sampling = Sampling(temperature=number % 2, seed=number, repeat_penalty=1.2, ignore_eos=True)
    return Request(prompt=RawPrompt(f"{prompt} {number}"), n=n, max_tokens=N, sampling=sampling)


async def history(pool: Pool, request: Request) -> list[Answer]:
    return [answer async for answer in pool.generate(request)]


def whole(answers: list[Answer], n: int = 1) -> list[tuple[str, list[int], str]]:
    """Each choice's text, tokens and reason, from a history in which nothing comes twice, is left out, or too late."""
    assert [type(answer) for answer in answers].count(Started) == 1
    (begin,) = (i for i, answer in enumerate(answers) if isinstance(answer, Started))
    assert all(isinstance(answer, Resuming) for answer in answers[:begin])
    said: list[tuple[str, list[int], str]] = []
    for choice in range(n):
        mine = [answer for answer in answers if isinstance(answer, Text | Done) and answer.choice == choice]
        *texts, end = mine
        assert isinstance(end, Done)
        tokens = [token for each in texts if isinstance(each, Text) for token in each.tokens]
        assert len(tokens) == end.n_output == N
        said.append(("".join(each.text for each in mine), tokens, end.reason))
    assert all(isinstance(answer, Text | Done | Started | Progress | Resuming) for answer in answers)
    return said


async def check(pool: Pool, requests: list[Request], told: list[list[Answer]]) -> None:
    """Each was told all, and what a worker says to whom nothing happens. That one is the pool's last."""
    for asked, answers in zip(requests, told, strict=True):
        assert whole(answers, asked.n) == whole(await history(pool, asked), asked.n)


@pytest.mark.parametrize(
    ("at", "tells"), [(1, 0.0), (1, 0.5), (1, 1.0), (23, 0.0), (23, 0.5), (N - 1, 1.0), (N, 0.0), (N, 0.5)]
)
async def test_k1_killed_at_the_first_token_in_the_middle_and_at_the_last(
    tmp_path: Path, at: int, tells: float
) -> None:
    async with doomed(tmp_path, Fate("writing", at, tells=tells)) as (pool, _):
        told = await history(pool, request())
        assert pool.served().replicas[0].n_restarts == 1
        await check(pool, [request()], [told])


async def test_k1_killed_at_each_of_twenty_random_tokens(tmp_path: Path) -> None:
    dice = random.Random(1)
    moments = [dice.randrange(2, N - 20) for _ in range(20)]
    # A worker finishes what the one before it began, whose last token was not heard, and dies of the next.
    rests = [0, *(N - moment + 1 for moment in moments)]
    fates = [Fate("writing", rest + at, tells=dice.random()) for rest, at in zip(rests, moments, strict=False)]
    async with doomed(tmp_path, *fates) as (pool, _):
        requests = [request(i) for i in range(20)]
        told = [await history(pool, each) for each in requests]
        assert pool.tally.n_resumed == pool.served().replicas[0].n_restarts == 20
        await check(pool, requests, told)


async def test_k1_killed_while_it_reads_a_prompt(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("reading")) as (pool, _):
        long = request(prompt="Once there was a dog. " * 30)
        told = await history(pool, long)
        assert pool.tally.n_resumed == 1
        await check(pool, [long], [told])


async def test_k1_the_next_worker_is_killed_while_it_loads(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 23), Fate("loading", tells=0.0)) as (pool, _):
        told = await history(pool, request())
        assert pool.served().replicas[0].n_restarts == 2
        await check(pool, [request()], [told])


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL])
async def test_k2_ended_by_any_other_signal(tmp_path: Path, number: int) -> None:
    async with doomed(tmp_path, Fate("writing", 23, number)) as (pool, _):
        three = request(1, n=3)
        told = await history(pool, three)
        assert pool.tally.n_resumed == 1
        await check(pool, [three], [told])


async def test_k3_stopped_for_three_seconds(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 23, signal.SIGSTOP, seconds=3)) as (pool, _):
        before = pid(pool)
        told = await history(pool, request())
        assert (pid(pool), pool.tally.n_resumed) == (before, 0)
        await check(pool, [request()], [told])


async def test_k3_stopped_for_ever(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 23, signal.SIGSTOP), hang_seconds=3) as (pool, _):
        told = await history(pool, request())
        assert pool.tally.n_resumed >= 1
        await check(pool, [request()], [told])


async def test_k4_a_worker_that_gets_no_memory_is_one_death_and_the_next_goes_on(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 23), Fate("starving", most_memory=64 * 1024**2)) as (pool, _):
        told = await history(pool, request())
        assert (pool.served().state, pool.served().replicas[0].n_restarts) == ("ready", 2)
        assert (tmp_path / "1 taken").exists()
        await check(pool, [request()], [told])


async def test_k13_all_workers_at_once(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 40), Fate("writing", 40), n_replicas=2) as (pool, _):
        requests = [request(i) for i in range(4)]
        told = await asyncio.gather(*(history(pool, each) for each in requests))
        assert pool.tally.n_resumed >= 4
        await check(pool, requests, told)


async def test_k14_killed_while_it_takes_over_others_streams(tmp_path: Path) -> None:
    async with doomed(tmp_path, Fate("writing", 40), Fate("resuming")) as (pool, _):
        requests = [request(i) for i in range(3)]
        told = await asyncio.gather(*(history(pool, each) for each in requests))
        assert pool.tally.n_resumed > 3
        await check(pool, requests, told)
