"""What OpenAI's clients may ask, and what they are told when they ask for something else."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.dialects.openai_wire import MAX_PROMPTS, ChatBody, CompletionBody
from plait.protocol import (
    MAX_ADAPTERS,
    MAX_CHOICES,
    MAX_LOGIT_BIASES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    AdapterScale,
    ChatMessage,
    ChatPrompt,
    RawPrompt,
    Request,
    Sampling,
    TokenPrompt,
)
from tests.dialects.asking import chat, complete, post
from tests.fakes.fleet import FakeFleet, say

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "Hi"}


async def asked(**fields: object) -> Request:
    """What the fleet is asked, when a completion with these fields is."""
    fleet = FakeFleet(say("x"))
    response = await complete(fleet, **fields)
    assert response.status_code == 200, response.text
    return fleet.request


async def messages(*said: dict[str, object]) -> list[ChatMessage]:
    """The turns that the fleet gets from these messages."""
    fleet = FakeFleet(say("x"))
    response = await chat(fleet, messages=said)
    assert response.status_code == 200, response.text
    assert isinstance(fleet.request.prompt, ChatPrompt)
    return fleet.request.prompt.messages


async def test_what_is_not_said_is_protocols_default() -> None:
    assert await asked() == Request(prompt=RawPrompt("Once"))


async def test_null_is_as_good_as_absent() -> None:
    fields = [field for kind in (CompletionBody, ChatBody) for field in kind.__struct_fields__]
    assert await asked(**{name: None for name in fields if name != "prompt"}) == await asked()


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", [RawPrompt("a")]),
        ("", [RawPrompt("")]),
        (["a", "b"], [RawPrompt("a"), RawPrompt("b")]),
        ([1, 2], [TokenPrompt([1, 2])]),
        ([[1, 2], [3]], [TokenPrompt([1, 2]), TokenPrompt([3])]),
    ],
)
async def test_a_prompt_is_text_or_token_ids_or_several(prompt: object, prompts: list[object]) -> None:
    fleet = FakeFleet(say("x"))
    assert (await complete(fleet, prompt=prompt)).status_code == 200
    assert [request.prompt for _, request in fleet.asked] == prompts


async def test_every_sampling_field_arrives_under_its_name() -> None:
    sampling = Sampling(
        seed=7,
        temperature=1.5,
        dynatemp_range=0.5,
        dynatemp_exponent=2.0,
        top_k=10,
        top_p=0.5,
        min_p=0.1,
        typical_p=0.9,
        top_n_sigma=2.0,
        xtc_probability=0.3,
        xtc_threshold=0.2,
        min_keep=1,
        repeat_last_n=-1,
        repeat_penalty=1.1,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        dry_multiplier=0.8,
        dry_base=1.5,
        dry_allowed_length=3,
        dry_penalty_last_n=100,
        dry_sequence_breakers=(".",),
        mirostat=2,
        mirostat_tau=4.0,
        mirostat_eta=0.2,
        logit_bias={5: -100.0},
        ignore_eos=True,
    )
    assert (await asked(**msgspec.to_builtins(sampling, str_keys=True))).sampling == sampling


@pytest.mark.parametrize(
    ("said", "seed"), [(0, 0), (2**32 - 2, 2**32 - 2), (2**32 - 1, 0), (2**63, 2**31), (-2, 2**32 - 3), (-1, None)]
)
async def test_any_integer_is_a_seed_but_minus_one_is_a_random_one(said: int, seed: int | None) -> None:
    assert (await asked(seed=said)).sampling.seed == seed


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
async def test_the_limit_has_three_names_and_none_means_none(name: str) -> None:
    assert (await asked(**{name: 5})).max_tokens == 5
    assert (await asked(**{name: -1})).max_tokens is None
    assert (await asked(**{"n_predict": 5, name: 5})).max_tokens == 5


async def test_the_prefix_cache_may_be_left_alone() -> None:
    assert [(await asked(cache_prompt=said)).cache_prompt for said in (True, False)] == [True, False]


async def test_a_request_may_ask_for_the_same_text_at_any_load() -> None:
    assert [(await asked(reproducible=said)).reproducible for said in (True, False, None)] == [True, False, False]


async def test_adapters_may_be_chosen_and_none_of_them_is_a_choice() -> None:
    said = [{"id": 1, "scale": 0.5}, {"id": 0, "scale": -1, "path": "a.gguf"}]
    assert (await asked(lora=said)).lora == (AdapterScale(1, 0.5), AdapterScale(0, -1.0))
    assert (await asked(lora=[])).lora == ()
    assert (await asked(lora=None)).lora is None


async def test_stop_is_one_string_or_several() -> None:
    assert (await asked(stop="a")).stop == ("a",)
    assert (await asked(stop=["a", "b"])).stop == ("a", "b")
    assert (await asked(stop=["é" * (MAX_STOP_BYTES // 2)] * MAX_STOPS)).stop


async def test_the_parts_of_a_message_are_lines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert await messages({"role": "user", "content": parts}) == [ChatMessage("user", "a\nb")]


async def test_roles_and_names_arrive_and_a_developer_is_the_system() -> None:
    said = await messages(
        {"role": "developer", "content": "a"},
        {"role": "user", "content": "b", "name": "Ann"},
        {"role": "assistant", "content": "c", "tool_calls": []},
        {"role": "tool", "content": "d", "tool_call_id": "1"},
    )
    assert said == [
        ChatMessage("system", "a"),
        ChatMessage("user", "b", "Ann"),
        ChatMessage("assistant", "c"),
        ChatMessage("tool", "d"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "Ann", "store": True, "metadata": {}, "made_up": [1]},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "functions": []},
        {"logprobs": False, "top_logprobs": 0, "modalities": ["text"], "tool_choice": "auto"},
        {"n": MAX_CHOICES, "cache_prompt": False, "stream": False},
        {"seed": 10**30, "temperature": 100, "top_k": -1, "top_n_sigma": -1},
        {"logit_bias": {str(token): 1 for token in range(MAX_LOGIT_BIASES)}},
    ],
)
async def test_what_asks_for_nothing_that_is_not_served_is_served(fields: dict[str, object]) -> None:
    assert (await chat(FakeFleet(), **fields)).status_code == 200


BAD_IN_BOTH: list[tuple[dict[str, Any], str | None]] = [
    ({"n": 0}, "n"),
    ({"n": MAX_CHOICES + 1}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": True}, "n"),
    ({"n": "7"}, "n"),
    ({"model": 5}, "model"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -2}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"n_predict": []}, "n_predict"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"max_tokens": 5, "n_predict": -1}, "max_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop[0]"),
    ({"stop": "a" * (MAX_STOP_BYTES + 1)}, "stop"),
    ({"stop": "é" * MAX_STOP_BYTES}, "stop"),
    ({"stop": ["a"] * (MAX_STOPS + 1)}, "stop"),
    ({"stream": 1}, "stream"),
    ({"stream": "true"}, "stream"),
    ({"stream_options": {}}, "stream_options"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream_options": [], "stream": True}, "stream_options"),
    ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
    ({"seed": 1.5}, "seed"),
    ({"seed": True}, "seed"),
    ({"seed": "7"}, "seed"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 100.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": "0.7"}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 2**31}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"typical_p": 2}, "typical_p"),
    ({"top_n_sigma": -2}, "top_n_sigma"),
    ({"xtc_probability": 2}, "xtc_probability"),
    ({"xtc_threshold": 2}, "xtc_threshold"),
    ({"min_keep": -1}, "min_keep"),
    ({"repeat_last_n": -2}, "repeat_last_n"),
    ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"dry_multiplier": -1}, "dry_multiplier"),
    ({"dry_base": 0.5}, "dry_base"),
    ({"dry_allowed_length": -1}, "dry_allowed_length"),
    ({"dry_penalty_last_n": -2}, "dry_penalty_last_n"),
    ({"dry_sequence_breakers": "a"}, "dry_sequence_breakers"),
    ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers[0]"),
    ({"dry_sequence_breakers": ["a"] * 17}, "dry_sequence_breakers"),
    ({"dynatemp_range": -1}, "dynatemp_range"),
    ({"dynatemp_exponent": -1}, "dynatemp_exponent"),
    ({"mirostat": 3}, "mirostat"),
    ({"mirostat_tau": -1}, "mirostat_tau"),
    ({"mirostat_eta": -1}, "mirostat_eta"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"cache_prompt": 0}, "cache_prompt"),
    ({"reproducible": 1}, "reproducible"),
    ({"lora": {}}, "lora"),
    ({"lora": [{"scale": 1}]}, "lora[0].id"),
    ({"lora": [{"id": 0}]}, "lora[0].scale"),
    ({"lora": [{"id": -1, "scale": 1}]}, "lora[0].id"),
    ({"lora": [{"id": 0, "scale": 101}]}, "lora[0].scale"),
    ({"lora": [{"id": 0, "scale": "NaN"}]}, "lora[0].scale"),
    ({"lora": [{"id": 0, "scale": 1}, {"id": 0, "scale": 0}]}, "lora"),
    ({"lora": [{"id": id, "scale": 1} for id in range(MAX_ADAPTERS + 1)]}, "lora"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {"AI": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
    ({"logit_bias": {"1": None}}, "logit_bias[...]"),
    ({"logit_bias": {str(token): 1 for token in range(MAX_LOGIT_BIASES + 1)}}, "logit_bias"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 0}, "logprobs"),
    ({"logprobs": 5}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ({"response_format": "text"}, "response_format"),
    ({"grammar": 'root ::= "a"'}, "grammar"),
    ({"json_schema": {}}, "json_schema"),
]
BAD_CHATS: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [USER, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "bard", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "Hi", "name": 5}]}, "messages[0].name"),
    ({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[1].tool_calls"),
    ({"messages": [{"role": "assistant", "content": "", "function_call": {}}]}, "messages[0].function_call"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tools": {}}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {}}, "audio"),
]
BAD_COMPLETIONS: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [[1], []]}, "prompt[1]"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [2**31]}, "prompt[0]"),
    ({"prompt": [10**30]}, "prompt[0]"),
    ({"prompt": [1.0]}, "prompt[0]"),
    ({"prompt": [True]}, "prompt[0]"),
    ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
    ({"prompt": [[[1]]]}, "prompt[0][0]"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": ["a", [1]]}, "prompt"),
    ({"prompt": [1, [1]]}, "prompt"),
    ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt"),
    ({"best_of": 2}, "best_of"),
    ({"best_of": 10**6, "n": 2}, "best_of"),
    ({"best_of": "1"}, "best_of"),
    ({"suffix": "end"}, "suffix"),
    ({"echo": 1}, "echo"),
    ({"echo": True, "prompt": [1, 2]}, "echo"),
]


def named(value: object) -> str:
    return str(value)[:60]


async def assert_refused(path: str, body: object, param: str | None) -> None:
    fleet = FakeFleet()
    response = await post(fleet, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", param), error
    assert error["type"] == "invalid_request_error"
    assert param is None or error["message"].startswith(param), error
    assert fleet.asked == []


@pytest.mark.parametrize(("fields", "param"), BAD_IN_BOTH + BAD_CHATS, ids=named)
async def test_a_bad_chat_is_refused_by_the_name_of_its_field(fields: dict[str, Any], param: str | None) -> None:
    await assert_refused("/v1/chat/completions", {"messages": [USER]} | fields, param)


@pytest.mark.parametrize(("fields", "param"), BAD_IN_BOTH + BAD_COMPLETIONS, ids=named)
async def test_a_bad_completion_is_refused_by_the_name_of_its_field(fields: dict[str, Any], param: str | None) -> None:
    await assert_refused("/v1/completions", {"prompt": "Once"} | fields, param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{",
        b'{"prompt": "a"} {}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        '{"prompt": "a"}'.encode("utf-16"),
        b'{"tools": ' + b"[" * 100_000,
    ],
    ids=named,
)
async def test_what_is_not_json_of_a_request_is_refused(body: bytes) -> None:
    await assert_refused("/v1/completions", body, None)


async def test_a_number_that_no_float_holds_is_refused() -> None:
    await assert_refused("/v1/completions", b'{"prompt": "a", "temperature": 1e400}', "temperature")
    await assert_refused("/v1/completions", b'{"prompt": "a", "seed": %s}' % (b"9" * 5000), "seed")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_missing_field_is_named(path: str) -> None:
    await assert_refused(path, {}, "prompt" if path == "/v1/completions" else "messages")


async def test_an_unknown_model_is_a_404_that_names_the_field() -> None:
    error = await chat(FakeFleet(), model="gpt-0")
    assert (error.status_code, error.json()["error"]["code"]) == (404, "model_not_found")
    assert error.json()["error"]["param"] == "model"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*CompletionBody.__struct_fields__, *ChatBody.__struct_fields__})


@given(st.sampled_from(FIELDS), JSON)
async def test_no_value_of_any_field_is_our_fault(field: str, value: object) -> None:
    fleet = FakeFleet(say("x"))
    for response in (await chat(fleet, **{field: value}), await complete(fleet, **{field: value})):
        assert response.status_code in (200, 400, 404), response.text
        if response.status_code != 200:
            assert field in response.json()["error"]["message"] or field == "model"


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
async def test_no_body_is_our_fault(body: object) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        response = await post(FakeFleet(say("x")), path, body)
        assert response.status_code in (200, 400, 404), response.text
