"""Answers made of parts, without a server."""

from collections.abc import AsyncGenerator

import httpx2
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from plait.errors import ContextOverflow
from plait.web.respond import JSON, respond

pytestmark = pytest.mark.anyio


async def words(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


async def refusal() -> AsyncGenerator[bytes, None]:
    raise ContextOverflow("too long")
    yield b""


async def answer(parts: AsyncGenerator[bytes, None], media_type: str) -> httpx2.Response:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await respond(Request(scope, receive), parts, media_type)
        await response(scope, receive, send)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as http:
        return await http.get("/")


async def test_a_whole_answer_says_its_length() -> None:
    response = await answer(words(b"[1,", b"2]"), JSON)
    assert response.json() == [1, 2]
    assert response.headers["content-length"] == "5"


async def test_a_streamed_answer_does_not() -> None:
    response = await answer(words(b"a", b"b"), "text/event-stream")
    assert response.content == b"ab"
    assert "content-length" not in response.headers


@pytest.mark.parametrize("media_type", [JSON, "text/event-stream"])
async def test_an_error_before_the_first_part_keeps_its_class(media_type: str) -> None:
    with pytest.raises(ContextOverflow):
        await answer(refusal(), media_type)
