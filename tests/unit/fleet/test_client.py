"""What the gateway's end of a worker's socket makes of one that is gone."""

import asyncio
import socket

import anyio.lowlevel
import pytest

from plait import protocol, wire
from plait.config import Engine
from plait.errors import WorkerDied
from plait.fleet.client import Client
from plait.fleet.journal import Journal
from plait.metrics import Tally
from plait.protocol import Cached, Load, RawPrompt, Request, Stats
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the server runs on."""
    return "asyncio", {"use_uvloop": True}


async def test_a_transport_that_closed_before_its_reader_knew_is_a_death() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        client = Client(reader, writer, Tally())
        loading = asyncio.create_task(client.load(Load("/fake", Engine(), "info")))
        await anyio.lowlevel.checkpoint()
        writer.transport.abort()
        await anyio.lowlevel.checkpoint()
        journal = Journal(Request(prompt=RawPrompt("a")))
        with pytest.raises(WorkerDied):
            await anext(client.generate(journal))
        journal.mark()
        assert journal.n_deaths == 0, "who was never heard of has no part in a death"
        with pytest.raises(WorkerDied):
            await loading


def stats(*step_seconds: float) -> Stats:
    """What a worker says that does nothing."""
    return Stats(
        n_slots=4,
        n_reading=0,
        n_writing=0,
        n_waiting=0,
        n_cells=0,
        n_cells_max=4096,
        prompt_tokens_total=0,
        cached_tokens_total=Cached(),
        output_tokens_total=0,
        requests_total=0,
        cancelled_total=0,
        steps_total=len(step_seconds),
        step_seconds=list(step_seconds),
        step_rows=[64] * len(step_seconds),
    )


async def test_no_step_has_taken_longer_than_the_worker_lives() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        client = Client(*await asyncio.open_connection(sock=ours), Tally())
        loading = asyncio.create_task(client.load(Load("/fake", Engine(), "info")))
        theirs.sendall(wire.pack(protocol.encode([stats(1e300, -1.0, float("nan"))])))
        await soon(lambda: client.stats is not None)
        usual = client.usual_step()
        assert usual is not None
        assert 0 <= usual <= SECONDS
    with pytest.raises(WorkerDied):
        await loading
