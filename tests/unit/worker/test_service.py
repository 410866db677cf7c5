"""What the I/O thread does with requests that are being prepared."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from plait.engine.sequence import Group
from plait.text.stream import TextStream
from plait.worker.service import wanted
from plait.worker.session import Choice, Work
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio


def opened(release: Callable[[], None]) -> Work:
    work = Work(7, 0.0, [1], [], lambda _: None, Group())
    work.choices.append(Choice(work, 0, TextStream(()), [], release))
    return work


def opened_after(may_go_on: threading.Event, release: Callable[[], None]) -> Work:
    assert may_go_on.wait(SECONDS)
    return opened(release)


async def test_who_is_cancelled_while_being_opened_leaves_no_sampler() -> None:
    freed: list[str] = []
    may_go_on = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        job = executor.submit(opened_after, may_go_on, partial(freed.append, "sampler"))
        task = asyncio.create_task(wanted(job))
        await asyncio.sleep(0)  # it waits
        await soon(job.running)
        task.cancel()
        await asyncio.wait([task])
        may_go_on.set()
        await soon(lambda: freed)
    assert task.cancelled()


async def test_who_is_cancelled_when_just_opened_leaves_none_either() -> None:
    freed: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        job = executor.submit(opened, partial(freed.append, "sampler"))
        job.result(SECONDS)
        task = asyncio.create_task(wanted(job))
        await asyncio.sleep(0)  # it waits for what is there already
        task.cancel()
        await asyncio.wait([task])
    assert freed == ["sampler"]


async def test_who_is_cancelled_before_its_turn_is_not_opened() -> None:
    freed: list[str] = []
    may_go_on = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(may_go_on.wait, SECONDS)
        job = executor.submit(opened, partial(freed.append, "sampler"))
        task = asyncio.create_task(wanted(job))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        may_go_on.set()
    assert job.cancelled()
    assert not freed
