"""What server-parallel asks of a fleet, and what it makes of the fleet's answers."""

import asyncio
from functools import partial
from pathlib import Path

import anyio
import httpx2
import pytest

from plait import errors
from plait.config import Config, Server
from plait.dialects.server_parallel import Body, refuse, routes, streamed
from plait.dialects.server_parallel_state import OWN, SYSTEM_PROMPT, Settings, Shared
from plait.errors import PlaitError
from plait.fleet.base import Fleet
from plait.gateway.app import create_app
from plait.gateway.table import Dialect
from plait.protocol import RawPrompt, Resuming, Sampling, Text
from plait.web.respond import BrokenOff
from tests.dialects.server_parallel.asking import SWITCH, gateway
from tests.fakes.fleet import FakeFleet, done, play, say, started
from tests.unit.gateway.asking import gateway as ordinary
from tests.waiting import soon

pytestmark = pytest.mark.anyio


async def ask(fleet: Fleet, settings: Settings = OWN, **fields: object) -> httpx2.Response:
    async with gateway(fleet, settings) as http:
        return await http.post("/completion", json=fields)


async def test_3_3_the_temperature_is_a_tenth_and_the_rest_is_fixed() -> None:
    fleet = FakeFleet()
    await ask(fleet, prompt=" Hi", top_k=1, n_predict=1, stop=["x"], stream=False)
    assert fleet.request.prompt == RawPrompt(SYSTEM_PROMPT + " Hi")
    assert fleet.request.sampling == Sampling(temperature=0.1, min_p=0.0, repeat_penalty=1.1)
    assert (fleet.request.stop, fleet.request.keep_stop, fleet.request.stop_after) == (("User:",), True, 3)
    assert fleet.request.max_tokens is fleet.request.max_total_tokens is None


@pytest.mark.parametrize(("said", "meant"), [(-1, 0), (0, 0), (1.5, 1.5)])
async def test_a_negative_temperature_is_greedy(said: float, meant: float) -> None:
    fleet = FakeFleet()
    await ask(fleet, temperature=said)
    assert fleet.request.sampling.temperature == meant


async def test_the_stream_is_this_byte_for_byte() -> None:
    response = await ask(FakeFleet(say(' "Grüß\n', "", " Gott", reason="length")))
    assert (
        response.content
        == (
            'data: {"content":" \\"Grüß\\n","slot_id":0}\n\n'
            'data: {"content":"","slot_id":0}\n\n'
            'data: {"content":" Gott","slot_id":0}\n\n'
        ).encode()
    )
    assert response.headers["content-type"] == "text/event-stream"


async def test_half_a_character_at_the_end_is_one_more_event() -> None:
    response = await ask(FakeFleet(play(started(), Text(0, 0, "a", [1]), done(0, 1, text="\ufffd"))))
    assert response.text.count("data: ") == 2


async def test_a_pause_is_a_comment() -> None:
    response = await ask(FakeFleet(play(started(), Text(0, 0, "a", [1]), Resuming(), done(0, 1))))
    assert response.text.endswith('"slot_id":0}\n\n: resuming\n\n')


async def test_the_limit_counts_from_behind_the_system_prompt() -> None:
    fleet = FakeFleet()
    async with gateway(fleet, Settings(n_predict=200)) as http:
        for _ in range(2):
            await http.post("/completion", json={})
    asked = [(request.max_tokens, request.max_total_tokens) for _, request in fleet.asked]
    assert asked == [(0, None), (None, 3 + 200 + 1), (None, 3 + 200 + 1)]


async def test_a_switch_replaces_every_antiprompt() -> None:
    fleet = FakeFleet()
    await ask(fleet, Settings(antiprompts=("###", "User:")), prompt=" It hurts.", **SWITCH)
    assert fleet.asked[-1][1].prompt == RawPrompt(SWITCH["system_prompt"] + " It hurts.")
    assert fleet.asked[-1][1].stop == ("Patient:",)


async def test_a_switch_ends_the_others_with_what_they_have() -> None:
    fleet = FakeFleet(
        lambda request: [started(), Text(0, 0, "a", [1]), done(0, 1) if request.max_tokens == 0 else asyncio.Event()]
    )
    async with gateway(fleet) as http, anyio.create_task_group() as group:
        others: list[httpx2.Response] = []

        async def other(**fields: object) -> None:
            others.append(await http.post("/completion", json=fields))

        group.start_soon(other)
        await soon(lambda: fleet.n_running == 1)
        fleet.script = say("b")
        switched = await http.post("/completion", json=SWITCH)
    assert others[0].content == b'data: {"content":"a","slot_id":0}\n\n'
    assert switched.content == b'data: {"content":"b","slot_id":0}\n\n'


async def test_an_error_before_the_first_token_has_a_status() -> None:
    response = await ask(FakeFleet(play(errors.Unavailable("loading"))))
    assert (response.status_code, response.text) == (503, "loading")
    assert response.headers["content-type"] == "text/plain"


async def test_an_error_after_it_breaks_the_stream_off(caplog: pytest.LogCaptureFixture) -> None:
    steps, said = (started(), Text(0, 0, "a", [1]), errors.WorkerDied("the worker died")), list[bytes]()
    with pytest.raises(BrokenOff):
        async for piece in streamed(Shared(FakeFleet(play(*steps)), OWN), Body(), None):
            said.append(piece)
    assert b"".join(said) == b'data: {"content":"a","slot_id":0}\n\n'
    assert "the worker died" in caplog.text


async def test_a_slot_is_free_again_whatever_happened() -> None:
    fleet = FakeFleet(play(errors.Unavailable("loading")))
    async with gateway(fleet, Settings(n_slots=1)) as http:
        assert (await http.post("/completion", json={})).status_code == 503
        fleet.script = say("a")
        assert (await http.post("/completion", json={"slot_id": 0})).status_code == 200
        assert (await http.post("/completion", json={"slot_id": 0})).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (errors.BadRequest("no"), 500, b""),
        (errors.ContextOverflow("too long"), 400, b"too long"),
        (errors.NotFound("no"), 404, b""),
        (errors.MethodNotAllowed("no"), 404, b""),
        (errors.Overloaded("full"), 404, b"slot_error"),
        (errors.Unavailable("loading"), 503, b"loading"),
    ],
)
def test_every_error_has_its_status(error: PlaitError, status: int, body: bytes) -> None:
    response = refuse(error)
    assert (response.status_code, response.body) == (status, body)


async def switch(with_key: Settings) -> tuple[int, int]:
    """The statuses of a switch and of a plain prompt, on a server with API keys."""
    dialect = Dialect("server-parallel", partial(routes, settings=with_key), refuse)
    server = Server(dialect=("server-parallel",), api_key=("a", "b"))
    async with ordinary(server, FakeFleet(), dialects=[dialect]) as http:
        http.headers["x-api-key"] = "a"
        switched = await http.post("/completion", json=SWITCH)
        return switched.status_code, (await http.post("/completion", json={})).status_code


async def test_the_holder_of_one_key_switches_nothing_for_the_others() -> None:
    assert await switch(OWN) == (403, 200)
    assert await switch(Settings(has_one_audience=True)) == (200, 200)


def test_what_went_wrong_fits_a_header() -> None:
    assert refuse(errors.BadRequest("é\r\nSet-Cookie: x")).headers["EXCEPTION_WHAT"].endswith("? Set-Cookie: x")


async def test_our_own_page_gives_way_to_the_folders(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("theirs")
    async with gateway(FakeFleet(), Settings(folder=tmp_path)) as http:
        assert (await http.get("/")).text == "theirs"
        assert "fetch" in (await http.get("/index.js")).text
        assert (await http.get("/nix.html")).status_code == 404


async def test_beside_other_dialects_no_page_of_another_origin_may_ask() -> None:
    app = create_app(Config(), FakeFleet())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as http:
        asked = await http.post(
            "/server-parallel/completion",
            content=b"{}",
            headers={"origin": "http://evil", "content-type": "text/plain"},
        )
        preflight = await http.request("OPTIONS", "/server-parallel/completion")
    assert asked.status_code == 415
    assert preflight.status_code == 404
