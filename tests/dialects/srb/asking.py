"""Asking the dialect: a running server, or one in memory over a fake fleet; and what its clients read from answers."""

import json
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NamedTuple

import httpx2

from plait.config import Config, Server
from plait.dialects import srb
from plait.dialects.srb import Settings
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from tests import serving
from tests.fakes.fleet import FakeFleet

PATH = "/v1/completions"
Event = dict[str, Any]


class Tokens(NamedTuple):
    """Ids."""

    period: int
    letter: int
    end: int


def always(token: int) -> Event:
    """The field that leaves no choice but this token."""
    return {"logit_bias": {str(token): 100}}


def post(server: serving.Server, **fields: object) -> httpx2.Response:
    return httpx2.post(server.url + PATH, json=fields, timeout=60)


def events(body: bytes) -> list[Event]:
    """The events of a stream of the first version, whose every byte is as Python's `json` writes it."""
    assert body.endswith(b"\n")
    found: list[Event] = []
    for line in body[:-1].split(b"\n"):
        assert line.startswith(b"data: ")
        found.append(json.loads(line[6:]))
        assert line[6:].decode() == json.dumps(found[-1])
    return found


def ask(server: serving.Server, **fields: object) -> list[Event]:
    """The events that answer a request."""
    response = post(server, **fields)
    assert response.status_code == 200, response.text
    return events(response.content)


def texts(told: list[Event]) -> list[list[str]]:
    """Each choice's words."""
    said: list[list[str]] = [[] for _ in range(told[0]["count"])]
    for event in told:
        if event["event"] == "stream":
            said[event["index"]].append(event["text"])
    return said


def ends(told: list[Event]) -> list[Event]:
    """The stop events, by choice."""
    return sorted((event for event in told if event["event"] == "stop"), key=lambda event: int(event["index"]))


def in_step(told: list[Event]) -> list[Event]:
    """The same events in the order in which the program told them."""
    said, stops = texts(told), ends(told)
    woven = told[:1]
    for step in range(max(map(len, said))):
        for index, words in enumerate(said):
            if step < len(words):
                woven.append({"event": "stream", "index": index, "text": words[step]})
            if step == len(words) - 1:
                woven.append(stops[index])
    return woven + told[-1:]


def fake(
    fleet: FakeFleet, settings: Settings = srb.OWN, server: Server | None = None
) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    """A client of a gateway in memory, at whose root the dialect is."""
    dialect = Dialect("srb", partial(srb.routes, settings=settings), srb.refuse)
    app = create_app(Config(server=server or Server(dialect=("srb",))), fleet, dialects=[dialect])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


async def told(fleet: FakeFleet, settings: Settings = srb.OWN, **fields: object) -> httpx2.Response:
    async with fake(fleet, settings) as http:
        return await http.post(PATH, json={"prompt": "Once"} | fields)
