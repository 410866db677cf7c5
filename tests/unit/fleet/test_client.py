"""What the gateway's end of a worker's socket makes of one that is gone."""

import asyncio
import socket

import anyio.lowlevel
import pytest

from plait.config import Engine
from plait.errors import WorkerDied
from plait.fleet.client import Client
from plait.fleet.journal import Journal
from plait.metrics import Tally
from plait.protocol import Load, RawPrompt, Request

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
        with pytest.raises(WorkerDied):
            await anext(client.generate(Journal(Request(prompt=RawPrompt("a")))))
        with pytest.raises(WorkerDied):
            await loading
