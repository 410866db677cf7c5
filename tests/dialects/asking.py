"""Asking a dialect over a fake fleet, in memory, the way an HTTP client would."""

import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from plait.dialects import openai
from plait.errors import PlaitError
from plait.web import sse
from tests.fakes.fleet import FakeFleet


def app(fleet: FakeFleet) -> Starlette:
    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, PlaitError)
        return openai.refuse(error)

    return Starlette(routes=openai.routes(fleet), exception_handlers={PlaitError: refuse})


async def get(fleet: FakeFleet, path: str) -> httpx2.Response:
    async with client(fleet) as http:
        return await http.get(path)


async def post(fleet: FakeFleet, path: str, body: object) -> httpx2.Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with client(fleet) as http:
        return await http.post(path, content=content, headers={"content-type": "application/json"})


def client(fleet: FakeFleet) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app(fleet)), base_url="http://fake")


async def complete(fleet: FakeFleet, **fields: object) -> httpx2.Response:
    return await post(fleet, "/v1/completions", {"prompt": "Once"} | fields)


async def chat(fleet: FakeFleet, **fields: object) -> httpx2.Response:
    return await post(fleet, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]} | fields)


def chunks(response: httpx2.Response) -> list[bytes]:
    """The data of a stream that ended well."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content.endswith(sse.DONE)
    return events(response)[:-1]


def events(response: httpx2.Response) -> list[bytes]:
    """The data of a stream, without its comments."""
    blocks = response.content.split(b"\n\n")
    return [block.removeprefix(b"data: ") for block in blocks if block.startswith(b"data: ")]
