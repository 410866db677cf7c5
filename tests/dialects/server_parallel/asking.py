"""Clients of server-parallel: of a running server, and of the dialect over a fake fleet, in memory."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Self

import httpx2
import msgspec

from plait.config import Config
from plait.config import Server as ServerSettings
from plait.dialects import server_parallel
from plait.dialects.server_parallel_state import Settings
from plait.fleet.base import Fleet
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from tests.serving import Server
from tests.waiting import until

N_PREDICT = 600
ENDLESS = 131_072
"""Tokens of a slot, of which each costs more than the one before: minutes, and megabytes only in so small a model."""
GREEDY = {"temperature": 0}
SWITCH = {"system_prompt": "Nurse and patient.\nPatient:", "anti_prompt": "Patient:", "assistant_name": "Nurse:"}
OWN = {"system_prompt": "A talk.\nUser:", "anti_prompt": "User:", "assistant_name": "Assistant:"}


class Client:
    """Of a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx2.Client(base_url=server.url, timeout=60)

    def when_quiet(self) -> Self:
        """The same client, when those who left have been noticed, by the gateway (which counts us) and the worker."""
        until(lambda: self.server.metric("plait_http_running") == 1)
        until(lambda: self.server.metric("plait_slots_writing") == self.server.metric("plait_slots_reading") == 0)
        return self

    def complete(self, **fields: object) -> httpx2.Response:
        return self.http.post("/completion", json=fields)

    def names(self) -> dict[str, str]:
        names: dict[str, str] = self.http.get("/props").json()
        return names

    @contextlib.contextmanager
    def streaming(self, **fields: object) -> Iterator[Iterator[str]]:
        """An answer that has begun, as the lines still to come; leaving the block is hanging up."""
        with self.http.stream("POST", "/completion", json=fields) as response:
            assert response.status_code == 200
            yield response.iter_lines()

    def n_tokens(self, text: str) -> int:
        """How many the model makes of a text, as the dialect next door says."""
        body = {"prompt": text, "max_tokens": 1}
        n: int = self.http.post("/openai/v1/completions", json=body).json()["usage"]["prompt_tokens"]
        return n


def contents(response: httpx2.Response) -> list[str]:
    """What the events of a stream hold, each of which is written as it must be."""
    assert response.status_code == 200
    *blocks, rest = response.text.split("\n\n")
    assert rest == ""
    pieces = [msgspec.json.decode(block.removeprefix("data: ")) for block in blocks]
    assert [f'data: {{"content":{text(piece["content"])},"slot_id":{piece["slot_id"]}}}' for piece in pieces] == blocks
    return [piece["content"] for piece in pieces]


def text(content: str) -> str:
    return msgspec.json.encode(content).decode()


def gateway(fleet: Fleet, settings: Settings | None = None) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    """A client of a gateway with this dialect at the root."""
    routes = partial(server_parallel.routes, settings=settings) if settings else server_parallel.routes
    dialect = Dialect("server-parallel", routes, server_parallel.refuse)
    app = create_app(Config(server=ServerSettings(dialect=("server-parallel",))), fleet, dialects=[dialect])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")
