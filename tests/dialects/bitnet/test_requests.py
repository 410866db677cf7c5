"""What the fields of `POST /generate` mean to the engine, and how what goes wrong is said."""

import httpx2
import pytest

from plait.config import Config
from plait.errors import ContextOverflow, GenerationFailed, Overloaded, PlaitError, Unavailable
from plait.gateway.app import create_app
from plait.protocol import ChatMessage, ChatPrompt, RawPrompt, Sampling
from tests.dialects.bitnet.asking import MAX_THREADS, ask, generate, send
from tests.fakes.fleet import INFO, FakeFleet, play, say

pytestmark = pytest.mark.anyio

N_CTX = INFO.n_ctx


async def test_what_is_not_said_is_as_the_readme_says() -> None:
    fleet = FakeFleet()
    await generate(fleet)
    request = fleet.request
    assert (request.max_tokens, request.ctx_size, request.n_threads, request.n) == (256, 2048, None, 1)
    assert request.sampling == Sampling(temperature=0.7, top_p=0.9)
    assert isinstance(request.prompt, ChatPrompt)
    assert [turn.role for turn in request.prompt.messages] == ["system", "user"]


async def test_every_field_reaches_the_engine() -> None:
    fleet = FakeFleet()
    await generate(
        fleet, system_prompt="Rhyme.", max_tokens=9, temperature=0, top_p=1, context_size=100, threads=2, other=[]
    )
    request = fleet.request
    assert request.prompt == ChatPrompt([ChatMessage("system", "Rhyme."), ChatMessage("user", "Hi")])
    assert (request.max_tokens, request.ctx_size, request.n_threads) == (9, 100, 2)
    assert request.sampling == Sampling(temperature=0.0, top_p=1.0)


async def test_without_conversation_the_prompt_is_all() -> None:
    fleet = FakeFleet()
    await generate(fleet, conversation_mode="false")
    assert fleet.request.prompt == RawPrompt("Hi")


async def test_an_empty_system_prompt_is_no_turn() -> None:
    fleet = FakeFleet()
    await generate(fleet, system_prompt="")
    assert fleet.request.prompt == ChatPrompt([ChatMessage("user", "Hi")])


async def test_no_request_gets_more_threads_than_max_threads() -> None:
    fleet = FakeFleet()
    await generate(fleet, threads=10**30)
    assert fleet.request.n_threads == MAX_THREADS


async def test_max_tokens_may_be_null() -> None:
    fleet = FakeFleet()
    await generate(fleet, max_tokens=None)
    assert fleet.request.max_tokens == 256


async def test_the_reply_is_byte_for_byte_the_readmes() -> None:
    response = await generate(FakeFleet(say("\n Hello", ' "> world"', " ")))
    assert response.content == (b'{"generated_text":"Hello \\"> world\\"","tokens_generated":3,"tokens_processed":3}')


@pytest.mark.parametrize(
    ("said", "kind", "limit"),
    [
        ({"max_tokens": 0}, "greater_than_equal", {"ge": 1}),
        ({"temperature": -0.5}, "greater_than_equal", {"ge": 0.0}),
        ({"top_p": "1.5"}, "less_than_equal", {"le": 1.0}),
        ({"threads": 0}, "greater_than_equal", {"ge": 1}),
        ({"context_size": N_CTX + 1}, "less_than_equal", {"le": N_CTX}),
    ],
)
async def test_a_limit_is_said_with_the_field_and_what_came(
    said: dict[str, object], kind: str, limit: dict[str, float]
) -> None:
    response = await generate(FakeFleet(), **said)
    ((field, value),) = said.items()
    (problem,) = response.json()["detail"]
    assert (response.status_code, problem["type"], problem["loc"]) == (422, kind, ["body", field])
    assert (problem["input"], problem["ctx"]) == (value, limit)


async def test_a_prompt_that_is_too_long_is_a_422_in_words() -> None:
    response = await generate(FakeFleet(play(ContextOverflow("the prompt has 9 tokens; a context holds 8"))))
    (problem,) = response.json()["detail"]
    assert (response.status_code, problem["loc"], problem["input"]) == (422, ["body", "prompt"], "Hi")
    assert problem["msg"] == "Value error, the prompt has 9 tokens; a context holds 8"


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Unavailable("restarting", retry_after=2), 503, "Model process not initialized or failed."),
        (GenerationFailed("the step failed"), 500, "Error generating text: the step failed"),
        (Overloaded("full", retry_after=3), 429, "full"),
    ],
)
async def test_what_fails_inside_is_said_in_the_originals_words(error: PlaitError, status: int, detail: str) -> None:
    response = await generate(FakeFleet(play(error)))
    assert (response.status_code, response.json()) == (status, {"detail": detail})


async def test_without_a_model_nothing_is_healthy() -> None:
    fleet = FakeFleet(names=[])
    health = await ask(fleet, "GET", "/health")
    assert (health.status_code, health.json()) == (503, {"status": "unhealthy", "detail": "no model is served"})
    for response in (await generate(fleet), await ask(fleet, "GET", "/model_info")):
        assert response.status_code == 503
        assert response.content == b'{"detail":"Model process not initialized or failed."}'


async def test_on_an_ordinary_server_it_has_its_prefix() -> None:
    app = create_app(Config(), FakeFleet())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:
        response = await http.post("/bitnet/generate", json={"prompt": "Hi"})
        refusal = await http.get("/bitnet/nothing")
    assert response.json()["generated_text"] == "Hello world"
    assert refusal.json() == {"detail": "Not Found"}


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/generate", 405, b'{"detail":"Method Not Allowed"}'),
        ("DELETE", "/health", 405, b'{"detail":"Method Not Allowed"}'),
        ("GET", "/chat", 404, b'{"detail":"Not Found"}'),
    ],
)
async def test_what_is_not_there_is_said_as_fastapi_says_it(method: str, path: str, status: int, body: bytes) -> None:
    response = await ask(FakeFleet(), method, path)
    assert (response.status_code, response.content) == (status, body)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            b"{bad",
            b'"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting '
            b'property name enclosed in double quotes"}',
        ),
        (b"", b'"missing","loc":["body"],"msg":"Field required","input":null'),
        (
            b"[1]",
            b'"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to '
            b'extract fields from","input":[1]',
        ),
    ],
)
async def test_a_body_that_is_no_object_is_refused_as_fastapi_does(body: bytes, problem: bytes) -> None:
    response = await send(body)
    assert (response.status_code, response.content) == (422, b'{"detail":[{"type":' + problem + b"}]}")


@pytest.mark.parametrize("body", [b'{"prompt": NaN}', b'{"prompt": "\\ud800"}', b"1" * 5000, b'{"prompt": 1e999}'])
async def test_what_only_pythons_parser_takes_is_a_422_too(body: bytes) -> None:
    response = await send(body)
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_invalid")


@pytest.mark.parametrize("body", [b'{"prompt": "\xff"}', b'{"prompt":' + b"[" * 100 + b"]" * 100 + b"}"])
async def test_what_no_parser_should_read_is_a_400(body: bytes) -> None:
    response = await send(body)
    assert (response.status_code, list(response.json())) == (400, ["detail"])


async def test_a_body_that_is_not_called_json_is_no_object() -> None:
    response = await send(b'{"prompt": "Hi"}', "application/x-www-form-urlencoded")
    (problem,) = response.json()["detail"]
    assert (response.status_code, problem["type"], problem["loc"]) == (422, "model_attributes_type", ["body"])
    assert "application/x-www-form-urlencoded" in problem["ctx"]["error"]
