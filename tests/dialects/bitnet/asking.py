"""Asking the BitNet dialect over a fake fleet, in memory, through the whole gateway."""

from functools import partial

import httpx2

from plait.config import Config, Server
from plait.dialects import bitnet_http
from plait.dialects.bitnet_http import Settings
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from tests.fakes.fleet import FakeFleet

MAX_THREADS = 4


async def ask(fleet: FakeFleet, method: str, path: str, **said: object) -> httpx2.Response:
    """What the server answers; `said` is the body."""
    async with client(fleet) as http:
        return await http.request(method, path, json=said or None)


async def generate(fleet: FakeFleet, **said: object) -> httpx2.Response:
    return await ask(fleet, "POST", "/generate", **({"prompt": "Hi"} | said))


async def send(body: bytes, media_type: str = "application/json") -> httpx2.Response:
    """What `POST /generate` answers to these bytes."""
    async with client(FakeFleet()) as http:
        return await http.post("/generate", content=body, headers={"content-type": media_type})


def client(fleet: FakeFleet) -> httpx2.AsyncClient:
    routes = partial(bitnet_http.routes, settings=Settings(max_threads=MAX_THREADS))
    dialect = Dialect("bitnet", routes, bitnet_http.refuse)
    app = create_app(Config(server=Server(dialect=("bitnet",))), fleet, dialects=[dialect])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")
