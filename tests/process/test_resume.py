"""A dead worker is a pause: streams go on, nothing is said twice or left out; and one request cannot end all."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from plait.errors import ContextOverflow, KnownPoison, PoisonousRequest, Unavailable
from plait.fleet.journal import PAUSE_SECONDS, Journal
from plait.fleet.pool import Pool
from plait.fleet.process import Launcher, Worker
from plait.fleet.supervisor import BREAKER_DEATHS
from plait.metrics import Tally
from plait.protocol import Answer, Done, RawPrompt, Request, Resuming, Started, Text
from tests.process.conftest import PLAN, OpenPool, order
from tests.process.test_workers import pid, text
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio

N = 40


def counting(prompt: str, n: int = 1) -> Request:
    return Request(prompt=RawPrompt(prompt), n=n, max_tokens=N)


def check_history(answers: list[Answer], n: int = 1) -> None:
    """Told once from beginning to end: one start, every number in order, one end a choice and nothing behind it."""
    assert [type(answer) for answer in answers].count(Started) == 1
    for choice in range(n):
        mine = [answer for answer in answers if isinstance(answer, Text | Done) and answer.choice == choice]
        assert [answer.tokens for answer in mine if isinstance(answer, Text)] == [[i] for i in range(N)]
        assert [isinstance(answer, Done) for answer in mine] == [False] * N + [True]


@pytest.mark.parametrize("at", [0, 1, 7, 20, N - 1])
async def test_a_stream_outlives_its_worker_wherever_that_dies(open_pool: OpenPool, tmp_path: Path, at: int) -> None:
    async with open_pool() as pool:
        answers = [answer async for answer in pool.generate(counting(f"mortal {tmp_path / 'died'} {at}"))]
        check_history(answers)
        assert pool.tally.n_resumed == 1
        assert pool.tally.outcomes == {"ok": 1}


async def test_all_choices_of_a_request_go_on(open_pool: OpenPool, tmp_path: Path) -> None:
    async with open_pool() as pool:
        answers = [answer async for answer in pool.generate(counting(f"mortal {tmp_path / 'died'} 9", n=3))]
        check_history(answers, n=3)


async def test_everybody_on_the_dead_worker_goes_on(open_pool: OpenPool) -> None:
    async with open_pool(n_replicas=2) as pool:
        streams = [pool.generate(counting(f"count {i}")) for i in range(4)]
        heard: list[list[Answer]] = [[await anext(stream), await anext(stream)] for stream in streams]
        os.kill(pid(pool) or 0, signal.SIGKILL)
        for stream, answers in zip(streams, heard, strict=True):
            answers += [answer async for answer in stream]
            check_history(answers)


async def test_all_workers_at_once_may_die(open_pool: OpenPool) -> None:
    async with open_pool(n_replicas=2) as pool:
        streams = [pool.generate(counting(f"count {i}")) for i in range(2)]
        heard: list[list[Answer]] = [[await anext(stream), await anext(stream)] for stream in streams]
        for replica in pool.served().replicas:
            os.kill(replica.pid or 0, signal.SIGKILL)
        for stream, answers in zip(streams, heard, strict=True):
            check_history(answers + [answer async for answer in stream])


async def test_a_worker_that_hangs_is_replaced(open_pool: OpenPool, tmp_path: Path) -> None:
    async with open_pool(hang_seconds=2.5) as pool:
        begin = time.monotonic()
        answers = [answer async for answer in pool.generate(counting(f"freeze {tmp_path / 'frozen'}"))]
        check_history(answers)
        assert time.monotonic() - begin > 2
        assert pool.served().replicas[0].n_restarts >= 1


async def test_k15_a_worker_that_ends_in_silence_and_whose_socket_lives_on_is_replaced(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    """Not for hanging: long before that."""
    async with open_pool(hang_seconds=SECONDS) as pool, asyncio.timeout(SECONDS):
        before = pid(pool)
        check_history([answer async for answer in pool.generate(counting(f"haunt {tmp_path / 'gone'}"))])
        assert pid(pool) != before


async def test_a_worker_that_stands_still_for_a_moment_is_left_alone(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        stream, worker = pool.generate(counting("count")), pid(pool) or 0
        heard: list[Answer] = [await anext(stream), await anext(stream)]
        os.kill(worker, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, os.kill, worker, signal.SIGCONT)
        check_history(heard + [answer async for answer in stream])
        assert pid(pool) == worker


@pytest.mark.parametrize("verb", ["crash", "garbage", "stranger"])
async def test_a_poisonous_request_is_refused_and_takes_a_healthy_one_with_it_twice_at_most(
    open_pool: OpenPool, verb: str
) -> None:
    async with open_pool() as pool:
        poison = Request(prompt=RawPrompt(verb))
        healthy = asyncio.create_task(collect(pool.generate(counting("count"))))
        with pytest.raises(PoisonousRequest):
            await text(pool.generate(poison))
        check_history(await healthy)
        assert pool.served().replicas[0].n_restarts <= 2
        with pytest.raises(KnownPoison, match="not tried again"):
            await text(pool.generate(poison))
        await soon(lambda: pool.served().state == "ready")


async def test_a_request_that_gets_a_word_further_with_each_death_takes_others_with_it_twice_at_most(
    open_pool: OpenPool,
) -> None:
    async with open_pool() as pool:
        healthy = [asyncio.create_task(collect(pool.generate(counting("count")))) for _ in range(2)]
        with pytest.raises(PoisonousRequest):
            await text(pool.generate(Request(prompt=RawPrompt("creep"), max_tokens=N)))
        for each in healthy:
            check_history(await each)
        assert pool.served().replicas[0].n_restarts <= 2


async def test_a_request_that_hangs_every_worker_is_refused_and_locks_nobody_out(open_pool: OpenPool) -> None:
    async with open_pool(hang_seconds=1.5) as pool, asyncio.timeout(SECONDS):
        poison = [asyncio.create_task(text(pool.generate(Request(prompt=RawPrompt(f"stall {i}"))))) for i in range(2)]
        for each in poison:
            with pytest.raises(PoisonousRequest):
                await each
        assert await text(pool.generate(Request(prompt=RawPrompt("echo again")))) == "again "


async def test_who_would_wait_in_anothers_queue_goes_on_where_there_is_room(open_pool: OpenPool) -> None:
    async with open_pool(n_replicas=2, n_slots=1) as pool, asyncio.timeout(SECONDS):
        busy, stream = pool.generate(counting("hang")), pool.generate(counting("shy"))
        heard = [await anext(busy), await anext(stream), await anext(stream)][1:]
        os.kill(pool.served().replicas[1].pid or 0, signal.SIGKILL)
        check_history(heard + [answer async for answer in stream])
        await busy.aclose()


async def test_who_waits_in_a_queue_goes_to_another_worker_when_a_slot_becomes_free_there(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    async with open_pool(n_replicas=2, n_slots=1, routing="round-robin") as pool, asyncio.timeout(SECONDS):
        gated, busy = pool.generate(counting(f"gate {tmp_path / 'open'}")), pool.generate(counting("hang"))
        heard = [await anext(gated), await anext(busy)]
        queued = [asyncio.create_task(collect(pool.generate(counting("shy")))) for _ in range(2)]
        await soon(lambda: [replica.n_running for replica in pool.served().replicas] == [2, 2])
        (tmp_path / "open").touch()
        assert len(heard) + len(await collect(gated)) > 3
        for each in queued:
            check_history(await each)
        await busy.aclose()


async def test_who_goes_on_and_hears_nothing_is_told_that_somebody_is_at_it(launcher: Launcher) -> None:
    worker = await Worker.start(launcher, order("good"), Tally())
    journal = Journal(counting("silent"), n_attempts=1)
    journal.note(Started(1, [ord(letter) for letter in "silent"]))
    async with aclosing(worker.client.generate(journal)) as answers:
        assert [await anext(answers) for _ in range(2)] == [Resuming(), Resuming()]
    await worker.stop(Unavailable("the test is over"), grace=0)


async def test_who_has_been_told_nothing_is_not_told_that_he_waits(launcher: Launcher) -> None:
    """The status line goes out with the first word, and a prompt may be refused yet."""
    restarts = asyncio.Event()
    restarts.set()

    async def start(tally: Tally) -> Worker:
        await restarts.wait()
        return await Worker.start(launcher, order("good"), tally)

    pool = Pool(PLAN, start, start, hang_seconds=30)
    await pool.start()
    restarts.clear()
    os.kill(pid(pool) or 0, signal.SIGKILL)
    await soon(lambda: pool.served().state == "restarting")
    asyncio.get_running_loop().call_later(PAUSE_SECONDS + 1, restarts.set)
    with pytest.raises(ContextOverflow):
        await anext(pool.generate(counting("refuse")))
    await pool.stop(Unavailable("the test is over"))


async def test_a_model_whose_workers_only_die_is_refused_with_the_reason_until_a_probe_lives(
    launcher: Launcher,
) -> None:
    n_started = 0

    async def start(tally: Tally) -> Worker:
        nonlocal n_started
        n_started += 1
        is_good = n_started == 1 or n_started > BREAKER_DEATHS
        return await Worker.start(launcher, order("good" if is_good else "deadly"), tally)

    pool = Pool(PLAN, start, start, hang_seconds=30)
    await pool.start()
    os.kill(pid(pool) or 0, signal.SIGKILL)
    await soon(lambda: pool.served().state == "failed")
    with pytest.raises(Unavailable, match="the worker died while it loaded"):
        await text(pool.generate(counting("count")))
    await soon(lambda: pool.served().state == "ready")
    assert n_started == BREAKER_DEATHS + 1
    check_history(await collect(pool.generate(counting("count"))))
    await pool.stop(Unavailable("the test is over"))


async def collect(stream: AsyncGenerator[Answer, None]) -> list[Answer]:
    return [answer async for answer in stream]
