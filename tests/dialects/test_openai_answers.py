"""What OpenAI's clients get: whole answers, streams, models. Ids and times are the only bytes that may differ."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from plait.errors import GenerationFailed, Overloaded
from plait.protocol import Progress, Text
from tests.dialects.asking import chat, chunks, complete, events, get
from tests.fakes.fleet import FakeFleet, done, play, say, started

pytestmark = pytest.mark.anyio

DETAILS = '"prompt_tokens_details":{"cached_tokens":1,"cached_from":{"running":0,"idle":1,"ram":0,"disk":0}}'
TWO_CHOICES = (Text(0, 0, "a", [1]), Text(0, 1, "b", [2]), Text(0, 0, "c", [3]), done(1, 1), done(0, 2, "length", "d"))


def fixed(body: bytes) -> str:
    """A body without what differs from one time to the next."""
    text = re.sub(rb'-[0-9a-f]{24}"', b'-ID"', body)
    text = re.sub(rb'"fp_[0-9a-f]{10}"', b'"fp_X"', text)
    return re.sub(rb'"created":\d+', b'"created":0', text).decode()


def contents(response: Any) -> dict[int, str]:
    """The text of each choice of a streamed chat."""
    said: dict[int, str] = {}
    for chunk in map(ChatCompletionChunk.model_validate_json, chunks(response)):
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
    return said


async def test_a_whole_completion_is_byte_for_byte_openais() -> None:
    response = await complete(FakeFleet(say("Hello", " world")))
    assert fixed(response.content) == (
        '{"id":"cmpl-ID","object":"text_completion","created":0,"model":"demo","system_fingerprint":"fp_X",'
        '"choices":[{"index":0,"text":"Hello world","logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,' + DETAILS + "}}"
    )


async def test_a_whole_chat_is_byte_for_byte_openais() -> None:
    response = await chat(FakeFleet(say("Hello", reason="length")))
    assert fixed(response.content) == (
        '{"id":"chatcmpl-ID","object":"chat.completion","created":0,"model":"demo","system_fingerprint":"fp_X",'
        '"choices":[{"index":0,"message":{"content":"Hello","role":"assistant","refusal":null},'
        '"finish_reason":"length","logprobs":null}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,' + DETAILS + "}}"
    )


async def test_a_streamed_chat_is_byte_for_byte_openais() -> None:
    fleet = FakeFleet(play(started(), Progress(0, 2, 3), Text(0, 0, "a\n", [1]), Text(0, 0, "", [2]), done(0, 2)))
    response = await chat(fleet, stream=True, stream_options={"include_usage": True})
    frame = (
        'data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":0,"model":"demo",'
        '"system_fingerprint":"fp_X","choices":[%s],"usage":%s}\n\n'
    )
    choice = '{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}'
    used = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,' + DETAILS + "}"
    assert fixed(response.content) == (
        frame % (choice % ('"role":"assistant","content":""', "null"), "null")
        + ": prompt 2/3\n\n"
        + frame % (choice % (r'"content":"a\n"', "null"), "null")
        + frame % (choice % ("", '"stop"'), "null")
        + frame % ("", used)
        + "data: [DONE]\n\n"
    )


async def test_a_streamed_completion_is_byte_for_byte_openais() -> None:
    response = await complete(FakeFleet(say("Hello")), stream=True)
    frame = (
        'data: {"id":"cmpl-ID","object":"text_completion","created":0,"model":"demo","system_fingerprint":"fp_X",'
        '"choices":[{"index":0,"text":"%s","logprobs":null,"finish_reason":%s}]}\n\n'
    )
    assert fixed(response.content) == frame % ("Hello", "null") + frame % ("", '"stop"') + "data: [DONE]\n\n"


async def test_the_official_types_accept_every_body() -> None:
    fleet = FakeFleet(play(started(), *TWO_CHOICES))
    ChatCompletion.model_validate_json((await chat(fleet, n=2)).content)
    Completion.model_validate_json((await complete(fleet, n=2)).content)
    Model.model_validate_json((await get(fleet, "/v1/models/demo")).content)
    for chunk in chunks(await chat(fleet, n=2, stream=True)):
        ChatCompletionChunk.model_validate_json(chunk)


async def test_the_text_held_back_for_a_stop_string_comes_with_the_end() -> None:
    fleet = FakeFleet(play(started(), *TWO_CHOICES))
    answer = ChatCompletion.model_validate_json((await chat(fleet, n=2)).content)
    assert [(choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        ("acd", "length"),
        ("b", "stop"),
    ]


async def test_each_choice_of_a_stream_opens_once_and_ends_once() -> None:
    response = await chat(FakeFleet(play(started(), *TWO_CHOICES)), n=2, stream=True)
    choices = [ChatCompletionChunk.model_validate_json(chunk).choices[0] for chunk in chunks(response)]
    assert [choice.index for choice in choices if choice.delta.role] == [0, 1]
    assert [(choice.index, choice.finish_reason) for choice in choices if choice.finish_reason] == [
        (1, "stop"),
        (0, "length"),
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.text()), max_size=20), st.lists(st.text(), min_size=3, max_size=3))
async def test_a_stream_adds_up_to_the_whole(said: list[tuple[int, str]], ends: list[str]) -> None:
    texts = [Text(0, choice, text, [1]) for choice, text in said]
    fleet = FakeFleet(play(started(), *texts, *(done(choice, 1, "stop", end) for choice, end in enumerate(ends))))
    answer = ChatCompletion.model_validate_json((await chat(fleet, n=3)).content)
    assert contents(await chat(fleet, n=3, stream=True)) == {c.index: c.message.content for c in answer.choices}


async def test_several_prompts_are_one_answer_in_their_order() -> None:
    fleet = FakeFleet(say("x"))
    answer = Completion.model_validate_json((await complete(fleet, prompt=["a", "b"], n=2, echo=True)).content)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "ax"), (1, "ax"), (2, "bx"), (3, "bx")]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 4)


async def test_a_stream_of_several_prompts_ends_when_all_have() -> None:
    response = await complete(FakeFleet(say("x")), prompt=["a", "b"], stream=True)
    choices = [msgspec.json.decode(chunk)["choices"][0] for chunk in chunks(response)]
    assert sorted(choice["index"] for choice in choices if choice["finish_reason"]) == [0, 1]


async def test_usage_is_in_a_stream_only_when_it_is_asked_for() -> None:
    plain = chunks(await chat(FakeFleet(), stream=True))
    asked = chunks(await chat(FakeFleet(), stream=True, stream_options={"include_usage": True}))
    assert not any(b'"usage"' in chunk for chunk in plain)
    assert all(b'"usage":null' in chunk for chunk in asked[:-1])
    last = ChatCompletionChunk.model_validate_json(asked[-1])
    assert last.choices == [] and last.usage is not None and last.usage.total_tokens == 5


async def test_an_error_before_the_first_event_is_a_status_even_for_a_stream() -> None:
    fleet = FakeFleet(play(Overloaded("the queue is full", retry_after=2)))
    response = await chat(fleet, stream=True)
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert response.headers["content-type"] == "application/json"


async def test_an_error_in_a_stream_is_its_last_event() -> None:
    fleet = FakeFleet(play(started(), Text(0, 0, "a", [1]), GenerationFailed("no more")))
    *_, text, error = events(await chat(fleet, stream=True))
    assert b'"content":"a"' in text
    assert msgspec.json.decode(error) == {
        "error": {"message": "no more", "type": "server_error", "param": None, "code": "generation_failed"}
    }


async def test_an_error_in_a_whole_answer_is_all_of_it() -> None:
    fleet = FakeFleet(play(started(), Text(0, 0, "a", [1]), GenerationFailed("no more")))
    response = await chat(fleet)
    assert response.status_code == 500
    assert fleet.n_running == 0


async def test_models_are_listed_with_their_size_and_state() -> None:
    listed = (await get(FakeFleet(names=["a", "b"]), "/v1/models")).json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["a", "b"]
    assert listed["data"][0] == {
        "id": "a",
        "created": 1_700_000_000,
        "meta": {"n_vocab": 2048, "n_ctx": 512, "n_ctx_train": 1024, "n_params": 1_000_000, "size": 2_000_000},
        "status": {"value": "ready", "reason": ""},
        "reproducible": {"value": "no", "reason": "it was not probed"},
        "object": "model",
        "owned_by": "plait",
    }


async def test_a_model_has_a_page_even_with_a_slash_in_its_name() -> None:
    fleet = FakeFleet(names=["owner/repo"])
    assert (await get(fleet, "/v1/models/owner/repo")).json()["id"] == "owner/repo"
    assert (await get(fleet, "/v1/models/owner")).status_code == 404


async def test_the_answer_names_the_model_that_gave_it() -> None:
    fleet = FakeFleet(names=["first", "second"])
    assert (await chat(fleet)).json()["model"] == "first"
    assert (await chat(fleet, model="second")).json()["model"] == "second"
    assert [name for name, _ in fleet.asked] == ["first", "second"]


async def test_the_fingerprint_is_the_workers_in_whole_answers_and_in_streams() -> None:
    fleet = FakeFleet()
    (demo,) = fleet.served
    assert demo.info is not None
    fleet.served = [structs.replace(demo, info=structs.replace(demo.info, fingerprint="fp_of_all"))]
    for ask in (complete, chat):
        assert (await ask(fleet)).json()["system_fingerprint"] == "fp_of_all"
        said = {msgspec.json.decode(chunk)["system_fingerprint"] for chunk in chunks(await ask(fleet, stream=True))}
        assert said == {"fp_of_all"}
