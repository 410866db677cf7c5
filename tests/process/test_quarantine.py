"""Requests that may be why workers die run alone, on workers that are real processes without a model."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from plait.errors import ModelLoadFailed, Unavailable, WorkerDied
from plait.fleet.journal import Journal
from plait.fleet.process import Launcher, Worker
from plait.fleet.quarantine import MOST_STARTS, Quarantine
from plait.metrics import Tally
from plait.protocol import Answer, Started
from tests.process.conftest import order
from tests.process.test_workers import children, request, text
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio


class Starts:
    """Starts workers, and counts them."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher, self.n = launcher, 0

    async def __call__(self) -> Worker:
        self.n += 1
        return await Worker.start(self.launcher, order("good"), Tally())


async def begun(quarantine: Quarantine, prompt: str) -> AsyncGenerator[Answer, None]:
    """A request that has a worker."""
    answers = quarantine.generate(Journal(request(prompt)))
    while not isinstance(await anext(answers), Started):
        pass
    return answers


async def test_who_leaves_the_quarantine_twice_leaves_its_door_open(launcher: Launcher) -> None:
    has_begun = asyncio.Event()

    async def start() -> Worker:
        """Goes on when it is cancelled."""
        with suppress(asyncio.CancelledError):
            if not has_begun.is_set():
                has_begun.set()
                await asyncio.Event().wait()
        return await Worker.start(launcher, order("good"), Tally())

    quarantine = Quarantine(start, 30)
    leaving = asyncio.create_task(text(quarantine.generate(Journal(request("echo first")))))
    await has_begun.wait()
    for _ in range(2):
        asyncio.get_running_loop().call_soon(leaving.cancel)
        await asyncio.wait([leaving], timeout=0.01)
    async with asyncio.timeout(SECONDS):
        assert await text(quarantine.generate(Journal(request("echo next")))) == "next "


async def test_the_quarantine_starts_one_worker_for_those_who_wait_and_come_to_no_harm(launcher: Launcher) -> None:
    before, starts = children(), Starts(launcher)
    quarantine = Quarantine(starts, 30)
    prompts = ["echo a", "echo b", "crash", "echo c", "echo d"]
    told = (text(quarantine.generate(Journal(request(prompt)))) for prompt in prompts)
    a, b, crash, c, d = await asyncio.gather(*told, return_exceptions=True)
    assert (a, b, c, d) == ("a ", "b ", "c ", "d ")
    assert isinstance(crash, WorkerDied)
    assert starts.n == 2
    assert children() == before


async def test_at_the_end_those_in_quarantine_and_before_its_door_are_told_why(launcher: Launcher) -> None:
    before = children()
    quarantine = Quarantine(Starts(launcher), 30)
    inside = await begun(quarantine, "hang")
    waiting = asyncio.create_task(text(quarantine.generate(Journal(request("echo b")))))
    await asyncio.sleep(0)
    quarantine.stop(Unavailable("the server is shutting down"))
    for left in (asyncio.create_task(text(inside)), waiting):
        with pytest.raises(Unavailable, match="shutting down"):
            await left
    await soon(lambda: children() == before)


async def test_who_leaves_the_quarantine_early_leaves_his_worker_to_nobody(launcher: Launcher) -> None:
    before, starts = children(), Starts(launcher)
    quarantine = Quarantine(starts, 30)
    inside = await begun(quarantine, "hang")
    waiting = asyncio.create_task(text(quarantine.generate(Journal(request("echo b")))))
    for _ in range(10):
        await asyncio.sleep(0)
    await inside.aclose()
    assert (await waiting, starts.n) == ("b ", 2)
    await soon(lambda: children() == before)


async def test_who_waits_for_the_quarantine_and_leaves_leaves_no_worker_behind(launcher: Launcher) -> None:
    before = children()
    quarantine = Quarantine(Starts(launcher), 30)
    inside = await begun(quarantine, "echo a")
    waiting = asyncio.create_task(text(quarantine.generate(Journal(request("echo b")))))
    await asyncio.sleep(0)
    finishing = asyncio.create_task(text(inside))
    finishing.add_done_callback(lambda _: waiting.cancel())
    await asyncio.wait([finishing, waiting])
    assert finishing.result() == "a "
    await soon(lambda: children() == before)


async def test_a_worker_that_does_not_start_is_tried_again(launcher: Launcher) -> None:
    models = iter(["bad", "deadly", "good"])
    quarantine = Quarantine(lambda: Worker.start(launcher, order(next(models)), Tally()), 30)
    async with asyncio.timeout(SECONDS):
        assert await text(quarantine.generate(Journal(request("echo a")))) == "a "


async def test_a_worker_that_never_starts_is_an_error_and_leaves_the_door_open(launcher: Launcher) -> None:
    models = iter([*["bad"] * MOST_STARTS, "good"])
    quarantine = Quarantine(lambda: Worker.start(launcher, order(next(models)), Tally()), 30)
    with pytest.raises(ModelLoadFailed, match="bad is no model"):
        await text(quarantine.generate(Journal(request("echo a"))))
    assert await text(quarantine.generate(Journal(request("echo b")))) == "b "


async def test_a_worker_that_starts_after_the_end_is_ended_and_its_request_told_why(launcher: Launcher) -> None:
    before, has_begun, may_start = children(), asyncio.Event(), asyncio.Event()

    async def start() -> Worker:
        has_begun.set()
        await may_start.wait()
        return await Worker.start(launcher, order("good"), Tally())

    quarantine = Quarantine(start, 30)
    waiting = asyncio.create_task(text(quarantine.generate(Journal(request("echo a")))))
    await has_begun.wait()
    quarantine.stop(Unavailable("the server is shutting down"))
    may_start.set()
    with pytest.raises(Unavailable, match="shutting down"):
        await waiting
    assert children() == before
