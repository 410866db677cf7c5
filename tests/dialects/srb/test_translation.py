"""What the dialect asks of a fleet, and what it makes of events that come in any order."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from plait.dialects.common import weave
from plait.dialects.srb import Loom, Settings, Word, streamed
from plait.dialects.srb_wire import SAMPLING, STOP, Flat
from plait.errors import GenerationFailed
from plait.protocol import Progress, RawPrompt, Request, Resuming, Sampling, Text
from plait.web import sse
from tests.dialects.srb.asking import PATH, ends, events, fake, in_step, told
from tests.fakes.fleet import FakeFleet, Step, done, play, started
from tests.unit.gateway.asking import gateway

pytestmark = pytest.mark.anyio

FLAT = Request(prompt=RawPrompt("Once"), n=8, max_tokens=65, stop=STOP, keep_stop=True, stop_after=3, sampling=SAMPLING)


async def asked(settings: Settings, **fields: object) -> Request:
    fleet = FakeFleet()
    assert (await told(fleet, settings, **fields)).status_code == 200
    return fleet.request


async def test_the_first_versions_sampling_and_limits_are_the_defaults() -> None:
    assert await asked(Settings()) == FLAT
    assert SAMPLING == Sampling(temperature=1.0, top_k=40, top_p=0.9, min_p=0.0)


async def test_null_is_as_good_as_absent_but_for_stream() -> None:
    names = ("n", "max_tokens", "min_tokens", "stop", "temperature", "top_k", "top_p", "min_p", "seed")
    assert await asked(Settings(), **dict.fromkeys(names)) == FLAT
    assert not (await asked(Settings(), stream=None)).keep_stop


@pytest.mark.parametrize("stream", [True, False, None])
async def test_the_later_versions_give_one_completion_of_64_tokens(stream: bool | None) -> None:
    request = await asked(Settings(), stream=stream)
    assert (request.n, request.max_tokens, request.stop, request.stop_after) == (1, 64, (), 3)


async def test_the_server_says_n_and_stop_strings_where_the_request_does_not() -> None:
    settings = Settings(n=3, max_n=4, stop=("User:",))
    assert ((await asked(settings)).n, (await asked(settings, n=4)).n) == (3, 4)
    assert (await asked(settings)).stop == (await asked(settings, stream=True)).stop == ("User:",)
    assert (await asked(settings, stop=[])).stop == ()
    assert (await told(FakeFleet(), settings, n=5)).status_code == 400


async def test_fields_of_other_programs_are_ignored() -> None:
    assert await asked(Settings(), model="gpt-4", user="Ann", echo=True) == FLAT


@given(st.lists(st.integers(0, 3), max_size=20).map(lambda order: [*order, 3, 0, 2, 1]))
async def test_however_events_come_they_are_told_in_step(order: list[int]) -> None:
    steps: list[Step] = [started()]
    for at, choice in enumerate(order):
        n = order[: at + 1].count(choice)
        steps.append(Text(0, choice, str(at), [1]))
        if n == order.count(choice):
            steps.append(done(choice, n))
    answer = events((await told(FakeFleet(play(*steps)), n=4)).content)
    assert answer == in_step(answer)
    assert [event["length"] + 1 for event in ends(answer)] == [order.count(choice) for choice in range(4)]


def test_a_word_waits_for_its_step_only() -> None:
    loom = Loom(2)
    loom.hear(Text(0, 1, "b", [1]))
    assert list(loom.words()) == []
    loom.hear(Text(0, 0, "a", [1]))
    loom.hear(Text(0, 0, "c", [1]))
    assert list(loom.words()) == [Word(0, "a", None), Word(1, "b", None)]


def test_an_end_that_comes_late_gets_a_word_of_its_own() -> None:
    loom, end = Loom(1), done(0, 1)
    loom.hear(Text(0, 0, "a", [1]))
    assert list(loom.words()) == [Word(0, "a", None)]
    loom.hear(end)
    assert list(loom.words()) == [Word(0, "", end)]
    assert not loom.live


async def test_what_was_held_back_belongs_to_the_last_word() -> None:
    fleet = FakeFleet(play(started(), Text(0, 0, "a", [1]), done(0, 1, "length", "\ufffd")))
    answer = await told(fleet, n=1)
    assert 'data: {"event": "stream", "index": 0, "text": "a\\ufffd"}\n' in answer.text


async def test_leaving_frees_every_choice_and_the_start_does_not_wait_for_a_word() -> None:
    fleet = FakeFleet(play(started(), Progress(0, 1, 3), Resuming(), asyncio.Event()))
    batches = weave([fleet.generate("demo", FLAT)], FLAT.n)
    async with aclosing(streamed(batches, FLAT.n, Flat(FLAT.n))) as parts:
        assert await anext(parts) == b'data: {"event": "start", "count": 8}\n'
        assert fleet.n_running == 1
    assert fleet.n_running == 0


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": False}])
async def test_an_error_before_the_first_event_is_a_status(fields: dict[str, Any]) -> None:
    response = await told(FakeFleet(play(GenerationFailed("the <engine> refused"))), **fields)
    assert (response.status_code, response.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "<p>the &lt;engine&gt; refused</p>" in response.text


async def test_an_error_after_it_is_the_last_event() -> None:
    fleet = FakeFleet(play(started(), *(Text(0, index, "a", [1]) for index in range(2)), GenerationFailed("no")))
    first = await told(fleet, n=2)
    assert first.text.endswith('"index": 1, "text": "a"}\ndata: {"event": "error", "error": "no"}\n')
    later = await told(fleet, n=2, stream=True)
    assert later.content.endswith(sse.event(b'{"error": "no"}'))


async def test_an_engine_that_does_not_run_is_told_as_the_program_told_it() -> None:
    fleet = FakeFleet()
    fleet.served = [structs.replace(fleet.served[0], state="restarting")]
    async with fake(fleet) as http:
        assert (await http.get("/v1/models")).json()["data"][0]["engine_state"] == "LOADING"
        assert (await http.get("/health")).status_code == 500


async def test_it_is_served_under_its_prefix_next_to_others() -> None:
    async with gateway() as http:
        response = await http.post(f"/srb{PATH}", json={"prompt": "Once", "n": 1})
        assert response.text.startswith('data: {"event": "start", "count": 1}\n')
        assert (await http.get("/srb/nope")).text.startswith("<!doctype html>")
