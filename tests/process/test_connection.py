"""What becomes of a connection whose request is too long, too slow, or wrong, or whose client does not read."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from plait.config import Config, Server
from plait.errors import WorkerDied
from plait.gateway.app import create_app
from plait.gateway.http import MAX_SURPLUS
from plait.gateway.listeners import listening
from plait.gateway.server import answering
from plait.protocol import Text
from tests.fakes.fleet import FakeFleet, done, play, say, started
from tests.waiting import SECONDS, soon

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEADER_TIMEOUT = 0.2
PATIENCE = 5
"""Seconds; longer than a machine stands still."""
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"prompt":"a"}'


OWN = Server(port=0, max_body=2048)
HASTY = Server(port=0, header_timeout=HEADER_TIMEOUT)
HASTY_WITH_BODIES = Server(port=0, body_timeout=0.2)
"""Short of patience: only for what does not come at all. A machine may stand still for as long."""


@asynccontextmanager
async def serving(fleet: FakeFleet | None = None, settings: Server = OWN) -> AsyncIterator[tuple[str, int]]:
    """The address of a server."""
    app = create_app(Config(server=settings), fleet or FakeFleet())
    with listening(settings) as listeners:
        async with answering(app, settings, listeners), asyncio.timeout(SECONDS):
            yield listeners[0].getsockname()


@asynccontextmanager
async def connected(fleet: FakeFleet | None = None, settings: Server = OWN) -> AsyncIterator[Streams]:
    """A connection to such a server."""
    async with serving(fleet, settings) as address:
        reader, writer = await asyncio.open_connection(*address)
        yield reader, writer
        writer.close()


async def answer(streams: Streams) -> bytes:
    """All that comes until the server closes."""
    return await streams[0].read()


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nhost: loc"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async with connected(settings=HASTY) as streams:
        streams[1].write(sent)
        assert status(await answer(streams)) == 408


async def test_a_second_head_that_does_not_come_is_not_waited_for() -> None:
    async with connected(settings=Server(port=0, header_timeout=PATIENCE)) as streams:
        streams[1].write(LIVEZ + b"GET /livez HTTP/1.1\r\n")
        response = await answer(streams)
        assert status(response) == 200
        assert response.count(b"HTTP/1.1 408 ") == 1


async def test_an_empty_line_behind_an_answer_is_no_head_that_begins() -> None:
    async with connected(settings=HASTY) as (reader, writer):
        writer.write(LIVEZ)
        await reader.readuntil(b'{"live":true')
        writer.write(b"\r\n")
        assert b"HTTP/1.1 408 " in await reader.read()


async def test_a_head_that_drips_has_no_more_time() -> None:
    async with connected(settings=HASTY) as (reader, writer):

        async def drip() -> None:
            writer.write(b"GET / HTTP/1.1\r\nx: ")
            while True:
                writer.write(b"y")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert status(await reader.read()) == 408
        dripping.cancel()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 60_000,
        b"GET / HTTP/1.1\r\n" + b"x" * 60_000,
    ],
)
async def test_a_long_head_is_refused(head: bytes) -> None:
    async with connected() as streams:
        streams[1].write(head)
        assert status(await answer(streams)) == 431


async def test_a_long_path_is_refused() -> None:
    async with connected() as streams:
        streams[1].write(b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert status(await answer(streams)) == 414


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: x\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n12",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_refused_and_the_connection_ends(head: bytes) -> None:
    async with connected() as streams:
        streams[1].write(head)
        assert status(await answer(streams)) == 400


@pytest.mark.parametrize("sent", [b"content-length: 20\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async with connected(settings=HASTY_WITH_BODIES) as streams:
        streams[1].write(HEAD + sent)
        response = await answer(streams)
        assert status(response) == 408
        assert b'"code":"request_timeout"' in response


@pytest.mark.parametrize(
    "sent",
    [
        b"content-length: 1000000000\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + 3 * (b"400\r\n%b\r\n" % (b"x" * 1024)),
    ],
)
async def test_a_long_body_is_refused_before_all_of_it_is_there(sent: bytes) -> None:
    async with connected() as streams:
        streams[1].write(HEAD + sent)
        response = await answer(streams)
        assert status(response) == 413
        assert b'"code":"body_too_large"' in response


async def test_a_connection_serves_one_request_after_another() -> None:
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
            head = await reader.readuntil(b"\r\n\r\n")
            assert status(head) == 200
            n_bytes = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(n_bytes)


async def test_a_long_answer_outlives_the_head_that_waits_behind_it() -> None:
    released = asyncio.Event()
    fleet = FakeFleet(play(started(), released, done(0, 0)))
    async with connected(fleet, Server(port=0, header_timeout=PATIENCE)) as (reader, writer):
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY + b"GET /livez HTTP/1.1\r\n")
        asyncio.get_running_loop().call_later(PATIENCE + 0.5, released.set)
        assert status(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.write(b"host: localhost\r\n\r\n")
        await reader.readuntil(b'{"live":true')


@pytest.mark.parametrize("path", [b"/llm-http/stream", b"/server-parallel/completion"])
async def test_an_answer_that_breaks_off_has_no_end_and_is_no_defect(
    path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FakeFleet(play(started(), Text(0, 0, "word", [1]), WorkerDied("the engine is gone")))
    async with connected(fleet) as streams:
        streams[1].write(HEAD.replace(b"/v1/completions", path) + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        response = await answer(streams)
    assert status(response) == 200
    assert b"word" in response
    assert not response.endswith(b"0\r\n\r\n")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "the engine is gone" in record.getMessage()


# ── who does not read ────────────────────────────────────────────────────────────────────────────────────────────

LONG = say(*["word" * 250_000] * 16)
"""More than the kernel holds for a client."""
LEAVING = b"connection: close\r\n"
WHOLE, STREAM = BODY, b'{"prompt":"a","stream":true}'


@contextmanager
def reading_nothing(address: tuple[str, int], fields: bytes, body: bytes) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(HEAD + fields + b"content-length: %d\r\n\r\n" % len(body) + body)
        yield connection


def is_reset(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return any(flags & select.POLLERR for _, flags in poll.poll(0))


@pytest.mark.parametrize(("fields", "body"), [(b"", STREAM), (LEAVING, STREAM), (LEAVING, WHOLE), (b"", WHOLE)])
async def test_who_takes_nothing_of_an_answer_is_gone(fields: bytes, body: bytes) -> None:
    async with serving(FakeFleet(LONG), Server(port=0, write_timeout=0.2)) as address:
        with reading_nothing(address, fields, body) as connection:
            await soon(lambda: is_reset(connection))


async def test_who_reads_slowly_is_not() -> None:
    async with serving(FakeFleet(LONG), Server(port=0, write_timeout=PATIENCE)) as address:
        with reading_nothing(address, LEAVING, STREAM) as connection:
            reader, writer = await asyncio.open_connection(sock=connection, limit=65536)
            n_read, end = 0, asyncio.get_running_loop().time() + PATIENCE + 1
            while asyncio.get_running_loop().time() < end:
                n_read += len(await reader.readexactly(300_000))
                await asyncio.sleep(0.3)
            assert (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            writer.close()


def accepted(client: object) -> socket.socket:
    """The server's end of a connection, which is in this process, too."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as end:
            if end.getpeername() == client:
                return end.dup()
    raise AssertionError("nobody has accepted it")


@pytest.mark.parametrize(("write_timeout", "silence"), [(0.2, 5), (60, 60), (86_400, 32_767)])
async def test_the_kernel_looks_whether_a_silent_client_is_there(write_timeout: float, silence: int) -> None:
    async with connected(settings=Server(port=0, write_timeout=write_timeout)) as streams:
        await ask(streams)
        with accepted(streams[1].get_extra_info("sockname")) as end:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            told = [end.getsockopt(socket.IPPROTO_TCP, name) for name in names]
    assert told == [silence, silence // 4, 4, 2000 * silence]


# ── too many connections ─────────────────────────────────────────────────────────────────────────────────────────

MOST = 2


@asynccontextmanager
async def crowd(n: int) -> AsyncIterator[list[Streams]]:
    """So many connections to a server that takes two."""
    async with serving(settings=Server(port=0, max_connections=MOST)) as address:
        opened = [await asyncio.open_connection(*address) for _ in range(n)]
        try:
            yield opened
        finally:
            for _, writer in opened:
                writer.close()


async def ask(streams: Streams) -> int:
    """The status of an answer after which the connection may go on."""
    streams[1].write(LIVEZ)
    return status(await streams[0].readuntil(b"\r\n\r\n"))


async def test_one_connection_too_many_is_told_so_and_disturbs_no_other() -> None:
    async with crowd(MOST + 1) as (first, second, surplus):
        surplus[1].write(LIVEZ)
        refusal = await answer(surplus)
        assert status(refusal) == 503
        assert b"retry-after: 1" in refusal
        assert [await ask(first), await ask(second)] == [200, 200]


async def test_a_place_that_becomes_free_is_given_to_the_next() -> None:
    async with crowd(MOST) as opened:
        address = opened[0][1].get_extra_info("peername")
        opened.pop()[1].close()
        opened.append(await asyncio.open_connection(*address))
        while await ask(opened[-1]) == 503:
            opened.append(await asyncio.open_connection(*address))


async def test_a_connection_too_many_that_asks_nothing_is_not_kept() -> None:
    async with crowd(MOST + 1) as opened:
        assert status(await answer(opened[-1])) == 503


async def test_a_flood_of_connections_is_cut_off_without_a_word() -> None:
    async with crowd(MOST + MAX_SURPLUS + 1) as opened:
        assert await answer(opened[-1]) == b""
