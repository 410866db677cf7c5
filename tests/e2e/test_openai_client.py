"""A server with the demo model, as OpenAI's own client sees it. Nothing here depends on what the model says."""

import asyncio
from collections.abc import Iterator
from itertools import islice

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionSystemMessageParam, ChatCompletionUserMessageParam

TALE = "Once upon a time there was"
TURN: ChatCompletionUserMessageParam = {"role": "user", "content": "Tell me a story."}
SYSTEM: ChatCompletionSystemMessageParam = {"role": "system", "content": "You tell short stories."}


@pytest.fixture
def client(server_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def model(client: OpenAI) -> str:
    return client.models.list().data[0].id


def write(client: OpenAI, model: str, prompt: str = TALE, **fields: object) -> str:
    """A greedy completion, unless the fields say otherwise."""
    answer = client.completions.create(model=model, prompt=prompt, max_tokens=16, temperature=0, extra_body=fields)
    return answer.choices[0].text


def test_the_served_models_are_listed_and_each_has_a_page(client: OpenAI) -> None:
    for model in client.models.list():
        assert client.models.retrieve(model.id) == model
        assert model.owned_by == "plait"


def test_a_completion_has_text_and_counts_its_tokens(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=TALE, max_tokens=8, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer.model == model


def test_a_chat_is_answered_by_the_assistant(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=[SYSTEM, TURN], max_tokens=16, seed=1)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_a_streamed_chat_is_the_whole_in_pieces(client: OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=[TURN], max_tokens=16, temperature=0)
    stream = client.chat.completions.create(
        model=model,
        messages=[TURN],
        max_tokens=16,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    first, *chunks, ending, last = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert ending.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage is not None and whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_a_streamed_completion_is_the_whole_in_pieces(client: OpenAI, model: str) -> None:
    stream = client.completions.create(model=model, prompt=TALE, max_tokens=16, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == write(client, model)


def test_the_same_seed_gives_the_same_text(client: OpenAI, model: str) -> None:
    texts = {write(client, model, temperature=1, seed=seed, ignore_eos=True) for seed in (5, 5, 5)}
    assert len(texts) == 1


def test_choices_are_as_many_as_asked_and_differ(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[TURN], n=4, max_tokens=24, seed=1, temperature=1.5, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * 24


def test_streamed_choices_all_end(client: OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=[TURN], n=3, max_tokens=8, stream=True)
    ended = [choice.index for chunk in stream for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1, 2]


def test_more_choices_than_slots_are_served(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=TALE, n=40, max_tokens=2)
    assert len(answer.choices) == 40


def test_several_prompts_are_answered_in_their_order(client: OpenAI, model: str) -> None:
    prompts = [TALE, "The old dog", "In the garden"]
    answer = client.completions.create(model=model, prompt=prompts, max_tokens=4, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.text.startswith(prompt) for choice, prompt in zip(answer.choices, prompts, strict=True))


def test_token_ids_are_a_prompt_too(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=[[300, 301, 302], [400]], max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4


def test_the_text_ends_before_a_stop_string(client: OpenAI, model: str) -> None:
    text = write(client, model, max_tokens=32, ignore_eos=True)
    stop = text[len(text) // 2 :][:3]
    stopped = client.completions.create(
        model=model, prompt=TALE, max_tokens=32, temperature=0, stop=[stop], extra_body={"ignore_eos": True}
    )
    assert stopped.choices[0].text == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_a_biased_token_is_all_that_is_said(client: OpenAI, model: str) -> None:
    once, thrice = (write(client, model, logit_bias={"300": 100}, max_tokens=n) for n in (1, 3))
    assert once and thrice == 3 * once


def test_a_prefix_that_was_computed_is_cached(client: OpenAI, model: str) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 10
    client.completions.create(model=model, prompt=prompt, max_tokens=1)
    again = client.completions.create(model=model, prompt=prompt, max_tokens=1)
    assert again.usage is not None and again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 0


@pytest.mark.anyio
async def test_many_clients_each_get_the_text_that_they_get_alone(client: OpenAI, model: str, server_url: str) -> None:
    prompts = [f"{TALE} a cat number {number}" for number in range(6)]
    alone = [write(client, model, prompt=prompt) for prompt in prompts]
    async with AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as crowd:
        answers = await asyncio.gather(
            *(crowd.completions.create(model=model, prompt=prompt, max_tokens=16, temperature=0) for prompt in prompts)
        )
    assert [answer.choices[0].text for answer in answers] == alone


def test_leaving_streams_early_leaves_the_server_free(client: OpenAI, model: str) -> None:
    for _ in range(20):
        stream = client.completions.create(model=model, prompt=TALE, stream=True, extra_body={"ignore_eos": True})
        with stream:
            assert len(list(islice(stream, 2))) == 2
    assert write(client, model)


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="no-such-model", prompt=TALE)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [""]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"stream": True, "top_p": 2}, "top_p"),
    ],
)
def test_a_bad_field_is_a_bad_request_that_names_it(
    client: OpenAI, model: str, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=[TURN], extra_body=fields)
    assert error.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(client: OpenAI, model: str, stream: bool) -> None:
    n_ctx = client.models.retrieve(model).model_dump()["meta"]["n_ctx"]
    n_prompt = n_ctx + 10
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt=[300] * n_prompt, stream=stream)
    assert error.value.code == "context_length_exceeded"
    assert str(n_ctx) in error.value.message and str(n_prompt) in error.value.message


def test_a_token_id_that_the_model_does_not_have_is_refused(client: OpenAI, model: str) -> None:
    n_vocab = client.models.retrieve(model).model_dump()["meta"]["n_vocab"]
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=model, prompt=[n_vocab])
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=model, prompt=TALE, logit_bias={str(n_vocab): 1})
