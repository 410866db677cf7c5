"""How OpenAI's clients are told what went wrong."""

import msgspec
import pytest

from plait import errors
from plait.dialects.openai import refuse
from plait.errors import PlaitError
from tests.dialects.asking import chat
from tests.fakes.fleet import FakeFleet, play

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlaitError)]
"""All that may be said; what others derive from them is said as one of these."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_openais_shape(kind: type[PlaitError]) -> None:
    response = refuse(kind("what happened", param="n"))
    error = msgspec.json.decode(response.body)["error"]
    assert response.status_code == kind.status
    assert response.headers["content-type"] == "application/json"
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["message"], error["param"], error["code"]) == ("what happened", "n", kind.code)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (errors.BadRequest, "invalid_request_error"),
        (errors.Unauthorized, "invalid_request_error"),
        (errors.ModelNotFound, "invalid_request_error"),
        (errors.Overloaded, "rate_limit_error"),
        (errors.WorkerDied, "server_error"),
        (PlaitError, "server_error"),
    ],
)
def test_the_type_follows_the_status(kind: type[PlaitError], name: str) -> None:
    assert msgspec.json.decode(refuse(kind("")).body)["error"]["type"] == name


def test_when_to_come_back_is_a_header() -> None:
    assert refuse(errors.Overloaded("full", retry_after=3)).headers["retry-after"] == "3"
    assert "retry-after" not in refuse(errors.Overloaded("full")).headers


@pytest.mark.parametrize("kind", [kind for kind in errors.KINDS if kind.status == 503])
def test_a_503_always_has_it(kind: type[PlaitError]) -> None:
    assert int(refuse(errors.from_code(kind.code, "")).headers["retry-after"]) >= 1


@pytest.mark.anyio
async def test_a_context_overflow_says_openais_code_and_what_the_worker_said() -> None:
    fleet = FakeFleet(play(errors.ContextOverflow("the prompt has 600 tokens, the context 512", param="messages")))
    response = await chat(fleet, stream=True)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "600" in error["message"] and "512" in error["message"]
