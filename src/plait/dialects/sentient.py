"""The Sentient inference server's dialect: `POST /load_model`, `POST /completions`, `GET /status`, `POST /`.

Its clients know what went wrong by the text of an answer whose status is 200; only what made that program hang up has
a status of its own here. docs/dialects/sentient.md says what is served.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from functools import partial
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from plait.dialects import axum, common
from plait.dialects.axum import I32, U32
from plait.errors import (
    BadRequest,
    BodyTooLarge,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PlaitError,
    UnsupportedMedia,
)
from plait.fleet.base import Fleet, Served
from plait.protocol import Answer, RawPrompt, Request, Sampling
from plait.web.respond import JSON, respond

GREEDY = Sampling(temperature=0.0)
"""All that this program knows; a seed changes nothing."""


class LoadBody(Struct, frozen=True):
    """What `POST /load_model` must say."""

    model_name: str
    model_path: str


class CompletionBody(Struct, frozen=True):
    """What `POST /completions` must say."""

    model: str
    prompt: str
    max_tokens: I32
    """How far prompt and answer may go together, counted from 0."""
    seed: U32
    n_threads: I32
    n_ctx: U32

    def check(self, served: Served) -> None:
        """Raise `BadRequest` for a context that no slot of this model has."""
        if served.info and self.n_ctx > served.info.n_ctx:
            raise BadRequest(f"n_ctx: {self.n_ctx} tokens; {served.info.n_ctx} are the most here", param="n_ctx")

    def request(self) -> Request:
        return Request(
            prompt=RawPrompt(self.prompt),
            max_total_tokens=self.max_tokens + 1,
            ctx_size=self.n_ctx,
            n_threads=max(self.n_threads, 0),
            spells_control=True,
            sampling=GREEDY,
        )


class HelloBody(Struct, frozen=True):
    """What `POST /` must say."""

    prompt: str


class Said(Struct, frozen=True):
    """Whatever is answered in JSON."""

    message: str = msgspec.field(name="Message")


def routes(fleet: Fleet) -> list[Route]:
    """This dialect's table."""
    return [
        Route("/load_model", partial(load_model, fleet, Loading()), methods=["POST"]),
        Route("/completions", partial(complete, fleet), methods=["POST"]),
        Route("/status", partial(show_status, fleet)),
        Route("/", greet, methods=["POST"]),
    ]


def refuse(error: PlaitError) -> Response:
    """This dialect's way of saying no: axum's, where axum itself said it."""
    match error:
        case ModelNotFound():
            return text(f"Error: {error.message}", error.status)
        case NotFound() | MethodNotAllowed():
            return Response(status_code=error.status)
        case UnsupportedMedia():
            return text("Expected request with `Content-Type: application/json`", error.status)
        case BodyTooLarge():
            return text("Failed to buffer the request body: length limit exceeded", error.status)
        case axum.Rejection():
            return text(error.message, error.status)
    return text(f"Error: {error.message}", error.status)


def text(said: str, status: int = 200) -> Response:
    return PlainTextResponse(said, status)


def encode(message: str) -> bytes:
    return msgspec.json.encode(Said(message))


class Loading:
    """The names whose models are being loaded. Two requests for one name take turns, so that it is loaded once."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, name: str) -> asyncio.Lock:
        """The lock of that name, which lives as long as somebody holds it or waits for it."""
        return self._turns.setdefault(name, asyncio.Lock())


async def load_model(fleet: Fleet, loading: Loading, http: HttpRequest) -> Response:
    """`POST /load_model`: answers when the model is ready. A client that leaves does not stop the load."""
    body = await axum.read(http, LoadBody)
    if not body.model_path:
        return text("Error: Model path must be provided")
    async with loading.turn(body.model_name):
        if any(served.name == body.model_name and not served.was_refused for served in fleet.models()):
            return text(f"Warning: Model {body.model_name} already loaded")
        # An absolute path cannot be taken for a repository, or for the name of a model somewhere on this machine.
        await fleet.load(os.path.join(os.getcwd(), body.model_path), body.model_name)
    return Response(encode(f"{body.model_name} Model loaded"), media_type=JSON)


async def complete(fleet: Fleet, http: HttpRequest) -> Response:
    """`POST /completions`."""
    body = await axum.read(http, CompletionBody)
    if body.n_ctx == 0:
        raise BadRequest("n_ctx: a context has at least one token", param="n_ctx")
    served = loaded(fleet).get(body.model)
    if served is None:
        return text(f"Error: Model {body.model} not loaded. Please load the model using the /load_model endpoint.")
    body.check(served)
    return await respond(http, whole(fleet.generate(served.name, body.request())), JSON)


async def whole(answer: AsyncGenerator[Answer, None]) -> AsyncGenerator[bytes, None]:
    """The answer in one part."""
    said = await common.fold(common.weave([answer], 1), 1)
    yield encode(said.texts[0])


async def show_status(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /status`."""
    return Response(encode("\n".join(loaded(fleet))), media_type=JSON)


async def greet(http: HttpRequest) -> Response:
    """`POST /`, which that program's README does not mention."""
    await axum.read(http, HelloBody)
    return text("Hello, World returned!")


def loaded(fleet: Fleet) -> dict[str, Served]:
    """The models that requests may name."""
    served = (each for each in fleet.models() if not each.was_refused)
    return {each.name: each for each in served if each.state not in ("loading", "unloading")}
