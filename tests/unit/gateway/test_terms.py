"""For whom a request is answered, and until when, whatever its dialect."""

import asyncio
from typing import Any

import httpx2
import pytest

from plait.config import Server
from plait.gateway.terms import HEADER
from plait.protocol import Text
from tests.fakes.fleet import FakeFleet, play, started
from tests.unit.gateway.asking import gateway

pytestmark = pytest.mark.anyio

SOON = 0.3
PATIENCE = 5.0
"""Longer than a machine stands still while a request is only passed on."""
TURN = {"role": "user", "content": "Once"}
COMPLETION = {"prompt": "Once"}

ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/openai/v1/completions", COMPLETION),
    ("/openai/v1/completions", COMPLETION | {"stream": True}),
    ("/openai/v1/chat/completions", {"messages": [TURN], "stream": True}),
    ("/llm-http/stream", COMPLETION),
    (
        "/sentient/completions",
        {"model": "demo", "prompt": "Once", "max_tokens": 9, "seed": 1, "n_threads": 1, "n_ctx": 64},
    ),
    ("/srb/v1/completions", COMPLETION | {"stream": True}),
    ("/server-parallel/completion", COMPLETION | {"slot_id": -1, "temperature": 0.5}),
    ("/bitnet/generate", COMPLETION),
]
"""Every dialect."""


def silent() -> FakeFleet:
    """It takes requests, and has no slot for them."""
    return FakeFleet(play(asyncio.Event()))


def falls_silent() -> FakeFleet:
    return FakeFleet(play(started(), Text(0, 0, "Once", [5]), asyncio.Event()))


async def ask(fleet: FakeFleet, server: Server, headers: dict[str, str], **fields: object) -> httpx2.Response:
    async with gateway(server, fleet) as http:
        return await http.post("/v1/completions", headers=headers, json=COMPLETION | fields)


async def wait_in_vain(path: str, body: dict[str, Any]) -> None:
    fleet = silent()
    async with gateway(fleet=fleet) as http:
        response = await http.post(path, headers={HEADER: str(PATIENCE)}, json=body)
    assert response.status_code == 504, f"{path}: {response.text}"
    assert len(fleet.asked) == 1
    assert fleet.n_running == 0


async def test_what_waits_too_long_is_a_504_in_every_dialect_and_is_given_up() -> None:
    await asyncio.gather(*(wait_in_vain(path, body) for path, body in ROUTES))


async def test_a_whole_answer_that_takes_too_long_is_a_504() -> None:
    response = await ask(fleet := falls_silent(), Server(deadline=SOON), {})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert fleet.n_running == 0


async def test_a_stream_that_takes_too_long_ends_with_one_error() -> None:
    response = await ask(fleet := falls_silent(), Server(deadline=PATIENCE), {}, stream=True)
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert response.status_code == 200
    assert [("Once" in line, "deadline_exceeded" in line) for line in lines] == [(True, False), (False, True)]
    assert fleet.n_running == 0


async def test_a_flood_of_answers_does_not_hide_that_time_is_over() -> None:
    endless = FakeFleet(lambda request: iter(lambda: Text(0, 0, "x", [5]), None))
    response = await ask(endless, Server(deadline=SOON), {}, n=1)
    assert response.status_code == 504


async def test_what_is_in_time_is_not_touched() -> None:
    response = await ask(FakeFleet(), Server(deadline=60), {HEADER: "1e3"})
    assert response.json()["choices"][0]["text"] == "Hello world"


@pytest.mark.parametrize(("own", "servers"), [(SOON, 60), (60, SOON)])
async def test_the_sooner_of_two_deadlines_holds(own: float, servers: float) -> None:
    response = await ask(silent(), Server(deadline=servers), {HEADER: str(own)})
    assert f"within {SOON} seconds" in response.json()["error"]["message"]


@pytest.mark.parametrize("said", ["", "soon", "0", "-1", "nan", "inf"])
async def test_what_is_no_time_is_refused(said: str) -> None:
    response = await ask(fleet := FakeFleet(), Server(), {HEADER: said})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("X-Request-Timeout")
    assert fleet.asked == []


# ── for whom ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def tenant(server: Server, key: str) -> str:
    await ask(fleet := FakeFleet(), server, {"x-api-key": key})
    return fleet.request.tenant


async def test_every_key_is_a_tenant_and_the_worker_is_not_told_the_key() -> None:
    locked = Server(api_key=("secret", "other"))
    tenants = [await tenant(locked, key) for key in ("secret", "other", "secret")]
    assert tenants[0] == tenants[2] != tenants[1]
    assert "secret" not in tenants[0]


async def test_without_keys_all_are_one_tenant() -> None:
    assert await tenant(Server(), "whatever") == ""


async def test_a_request_may_say_its_priority() -> None:
    await ask(fleet := FakeFleet(), Server(), {}, priority=-7)
    assert fleet.request.priority == -7
    assert (await ask(FakeFleet(), Server(), {}, priority=101)).status_code == 400
