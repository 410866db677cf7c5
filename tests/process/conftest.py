"""Pools of workers that are real processes without a model."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from plait.config import Engine
from plait.errors import Unavailable
from plait.fleet.pool import Plan, Pool
from plait.fleet.process import Launcher, Worker
from plait.protocol import Load
from tests.fakes.worker import N_SLOTS, command

OpenPool = Callable[..., AbstractAsyncContextManager[Pool]]

PLAN = Plan(
    name="fake",
    path=Path("/fake"),
    n_replicas=1,
    n_slots=N_SLOTS,
    max_queue=10,
    max_queue_tokens=1000,
    n_bytes=0,
)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher(command())
    yield launcher
    launcher.close()


@pytest.fixture
def open_pool(launcher: Launcher) -> OpenPool:
    """Makes a pool that is ready and is stopped in the end."""

    @asynccontextmanager
    async def open_pool(hang_seconds: float = 30, **wishes: int | str) -> AsyncIterator[Pool]:
        plan = structs.replace(PLAN, **wishes)
        start = partial(Worker.start, launcher, order("good"))
        pool = Pool(plan, start, start, hang_seconds)
        await pool.start()
        yield pool
        await pool.stop(Unavailable("the test is over"))

    return open_pool


def order(name: str) -> Load:
    """To load the file of that name."""
    return Load(f"/fake/{name}", Engine(), "info")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}
