"""Asking the dialect: a running server, or one in memory over a fake fleet."""

import httpx2

from plait.config import Config
from plait.config import Server as Settings
from plait.dialects import sentient
from plait.fleet.registry import DEMO, resolve
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from tests.fakes.fleet import FakeFleet
from tests.serving import Server

MODEL = str(resolve(DEMO).path)
FIELDS = {"model": "demo", "prompt": "Hello, world!", "max_tokens": 10, "seed": 1234, "n_threads": 5, "n_ctx": 2048}
"""All that a completion must say; the prompt and the limit are the README's."""


def post(server: Server, path: str, body: object) -> httpx2.Response:
    return httpx2.post(server.url + path, json=body, timeout=60)


def load(server: Server, name: str, path: str = MODEL) -> httpx2.Response:
    return post(server, "/load_model", {"model_name": name, "model_path": path})


def complete(server: Server, **said: object) -> httpx2.Response:
    return post(server, "/completions", FIELDS | said)


def message(response: httpx2.Response) -> str:
    """What an answer in JSON says."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    ((key, said),) = response.json().items()
    assert key == "Message"
    assert isinstance(said, str)
    return said


def words(response: httpx2.Response) -> str:
    """What an answer in text says, as clients know errors."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    return response.text


def client(fleet: FakeFleet) -> httpx2.AsyncClient:
    """Of a gateway in memory, at whose root the dialect is."""
    dialect = Dialect("sentient", sentient.routes, sentient.refuse)
    app = create_app(Config(server=Settings(dialect=("sentient",))), fleet, dialects=[dialect])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")


async def ask(fleet: FakeFleet, path: str, body: object) -> httpx2.Response:
    async with client(fleet) as http:
        return await http.post(path, json=body)
