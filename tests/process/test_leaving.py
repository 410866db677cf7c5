"""A client that hangs up, seen from a real server: whatever it left at, its work is closed at once."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from plait.config import Server
from plait.gateway.listeners import listening
from plait.gateway.server import answering
from plait.web.respond import JSON, respond

pytestmark = pytest.mark.anyio

SSE = "text/event-stream"
DEADLINE = 30.0


class Work:
    """Parts that come until nobody wants them."""

    def __init__(self) -> None:
        self.has_begun, self.is_closed = asyncio.Event(), asyncio.Event()

    async def silent(self) -> AsyncGenerator[bytes, None]:
        async with self.noted():
            await asyncio.Event().wait()
            yield b""

    async def falls_silent(self) -> AsyncGenerator[bytes, None]:
        async with self.noted():
            yield b"first"
            await asyncio.Event().wait()

    async def flood(self) -> AsyncGenerator[bytes, None]:
        async with self.noted():
            while True:
                await asyncio.sleep(0)
                yield b"x" * 100_000

    @asynccontextmanager
    async def noted(self) -> AsyncIterator[None]:
        self.has_begun.set()
        try:
            yield
        finally:
            self.is_closed.set()

    async def answer(self, request: Request) -> Response:
        kind, media_type = request.path_params["kind"], request.query_params["type"]
        parts = {"silent": self.silent, "falls-silent": self.falls_silent, "flood": self.flood}[kind]
        return await respond(request, parts(), media_type)


@asynccontextmanager
async def asked(work: Work, target: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the work has begun."""
    with listening(Server(port=0)) as listeners:
        async with answering(Router([Route("/{kind}", work.answer)]), Server(), listeners):
            reader, writer = await asyncio.open_connection(*listeners[0].getsockname())
            writer.write(f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            async with asyncio.timeout(DEADLINE):
                await work.has_begun.wait()
                yield reader, writer


@pytest.mark.parametrize("media_type", [SSE, JSON])
async def test_leaving_before_the_first_part(media_type: str) -> None:
    work = Work()
    async with asked(work, f"/silent?type={media_type}") as (_, writer):
        writer.close()
        await work.is_closed.wait()


async def test_leaving_while_a_stream_is_silent() -> None:
    work = Work()
    async with asked(work, f"/falls-silent?type={SSE}") as (reader, writer):
        await reader.readuntil(b"first")
        assert not work.is_closed.is_set()
        writer.close()
        await work.is_closed.wait()


async def test_leaving_in_the_middle_of_what_is_sent() -> None:
    work = Work()
    async with asked(work, f"/flood?type={SSE}") as (reader, writer):
        await reader.readexactly(1_000_000)
        writer.close()
        await work.is_closed.wait()


async def test_leaving_a_whole_answer_half_made() -> None:
    work = Work()
    async with asked(work, f"/falls-silent?type={JSON}") as (_, writer):
        writer.close()
        await work.is_closed.wait()


async def test_a_reset_is_leaving_too() -> None:
    work = Work()
    async with asked(work, f"/falls-silent?type={SSE}") as (reader, writer):
        await reader.readuntil(b"first")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.close()
        await work.is_closed.wait()
