"""A client that leaves takes its work with it, at whatever moment."""

import asyncio
from collections.abc import MutableMapping
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
import pytest

from plait.dialects.common import weave
from plait.dialects.openai import Chunks, streamed
from plait.dialects.openai_wire import TEXT
from plait.protocol import RawPrompt, Request, Text
from tests.dialects.asking import app
from tests.fakes.fleet import FakeFleet, Step, play, served, started
from tests.waiting import SECONDS

pytestmark = pytest.mark.anyio

HEADERS = [(b"content-type", b"application/json")]
SCOPE = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": HEADERS}


@pytest.mark.parametrize("steps", [(), (started(),), (started(), Text(0, 0, "a", [1]))], ids=len)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n_prompts", [1, 3])
async def test_leaving_frees_what_was_asked(steps: tuple[Step, ...], stream: bool, n_prompts: int) -> None:
    fleet = FakeFleet(play(*steps, asyncio.Event()))
    body = msgspec.json.encode({"prompt": ["a"] * n_prompts, "stream": stream})
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if requests:
            return requests.pop()
        while fleet.n_running < n_prompts:
            await anyio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        pass

    with anyio.fail_after(SECONDS):
        await app(fleet)(SCOPE, receive, send)
        while fleet.n_running:
            await anyio.lowlevel.checkpoint()
    assert len(fleet.asked) == n_prompts


async def test_leaving_between_two_parts_frees_it_at_once() -> None:
    fleet = FakeFleet(play(started(), Text(0, 0, "a", [1]), asyncio.Event()))
    batches = weave([fleet.generate("demo", Request(prompt=RawPrompt("a")))], 1)
    async with aclosing(streamed(batches, Chunks(TEXT, served("demo"), 1, has_usage=False))) as parts:
        assert b'"text":"a"' in await anext(parts)
        assert fleet.n_running == 1
    assert fleet.n_running == 0
