"""A request whose workers die for ever, each after it was of use: that has an end, too, and it is told."""

import asyncio
import socket
from contextlib import suppress

import pytest

from plait import protocol, wire
from plait.errors import Unavailable, WorkerDied
from plait.fleet.client import Client
from plait.fleet.journal import CLEARING_TOKENS
from plait.fleet.pool import MOST_ATTEMPTS, Pool
from plait.fleet.process import Launcher, Worker
from plait.fleet.supervisor import USEFUL_TOKENS
from plait.metrics import Tally
from plait.protocol import Answer, Cached, Generate, Load, Order, RawPrompt, Request, Started, Text
from tests.fakes.worker import FakeWorker
from tests.process.conftest import PLAN, order
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio


async def live(connection: socket.socket) -> None:
    """A worker's life in this process, where it is short: it dies of its first request."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while not writer.is_closing():
            for each in protocol.decode_orders(await wire.read(reader)):
                obey(each, writer)
    writer.close()


def obey(order: Order, writer: asyncio.StreamWriter) -> None:
    worker = FakeWorker(writer)
    match order:
        case Load(engine=engine):
            worker.load("good", engine)
            worker.n_steps = USEFUL_TOKENS
            worker.pulse()
        case Generate(id=id, known=known):
            n = len(known[0] or ()) if known else 0
            words = (Text(id, 0, f"{i} ", [i]) for i in range(n, n + CLEARING_TOKENS))
            worker.send([Started(id, [1], Cached()), *words])
            writer.close()


async def test_attempts_are_bounded_and_the_last_is_told_as_an_error() -> None:
    launcher, lives, heard = Launcher(["sh", "-c", "exec sleep 600", "sh"]), set[asyncio.Task[None]](), list[Answer]()

    async def start(tally: Tally) -> Worker:
        """Its process is none that anything depends on."""
        ours, theirs = socket.socketpair()
        process = launcher.launch(ours.fileno())
        client = Client(*await asyncio.open_unix_connection(sock=ours), tally)
        worker = Worker(process, client)
        lives.add(asyncio.create_task(live(theirs)))
        worker.model = await worker.client.load(order("good"))
        return worker

    pool = Pool(PLAN, start, start, hang_seconds=30)
    await pool.start()
    with pytest.raises(WorkerDied):
        async with asyncio.timeout(SECONDS):
            async for answer in pool.generate(Request(prompt=RawPrompt("a"))):
                heard.append(answer)
    # One that is cut off in its start would leave its process unburied.
    await soon(lambda: len(lives) > MOST_ATTEMPTS and pool.served().state == "ready")
    await pool.stop(Unavailable("the test is over"))
    launcher.close()
    await asyncio.wait(lives)
    told = [answer.tokens for answer in heard if isinstance(answer, Text)]
    assert told == [[i] for i in range(MOST_ATTEMPTS * CLEARING_TOKENS)]
    assert pool.tally.outcomes == {"worker_died": 1}
