"""llama-srb-api's dialect: one prompt, many completions, told token by token in step.

Without `stream` in the request, the answer has the events of its first version: start, stream, stop, done; with it, the
shapes of its later ones, which resemble OpenAI's. Owns nothing that outlives a request, and knows no other dialect.
docs/dialects/srb.md says what is served.
"""

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from plait.dialects import common
from plait.dialects.srb_wire import (
    STATES,
    Body,
    Engine,
    EngineList,
    Flat,
    Later,
    Note,
    Shape,
    jsonify,
    page,
    whole,
)
from plait.errors import BadRequest, ModelNotFound, Overloaded, PlaitError, Unavailable, WorkerDied
from plait.fleet.base import Fleet, Served
from plait.protocol import Answer, Done, Request, Resuming, Started, Text
from plait.web import guard
from plait.web.respond import JSON, respond

NOT_READY = "Engine not ready"
HTML = "text/html; charset=utf-8"
EVENTS = "text/event-stream; charset=utf-8"


class Settings(Struct, frozen=True):
    """What the server's flags choose for its requests."""

    n: int = 8
    """Completions of a request that does not say how many."""
    max_n: int = 16
    """The most that a request may ask for."""
    stop: tuple[str, ...] | None = None
    """Stop strings of requests that bring none; None: what is usual for the shape of the answer."""


OWN = Settings()


def routes(fleet: Fleet, settings: Settings = OWN) -> list[Route]:
    """This dialect's table."""
    return [
        Route("/v1/completions", partial(complete, fleet, settings), methods=["POST"]),
        Route("/v1/models", partial(list_models, fleet)),
        Route("/health", partial(health, fleet)),
    ]


def refuse(error: PlaitError) -> Response:
    """What its framework says; its own word is that the engine is not ready."""
    match error:
        case ModelNotFound() | Unavailable() | WorkerDied() | Overloaded():
            return Response(jsonify(Note(NOT_READY)), 500, media_type=JSON)
    status = HTTPStatus(error.status)
    return Response(page(status, error.message), status, media_type=HTML)


async def complete(fleet: Fleet, settings: Settings, http: HttpRequest) -> Response:
    """`POST /v1/completions`."""
    body = await guard.json(http, Body)
    request = order(body, settings)
    served = common.find(fleet, None)
    batches = common.weave([fleet.generate(served.name, request)], request.n)
    if body.is_flat:
        return await respond(http, streamed(batches, request.n, Flat(request.n)), HTML)
    if body.stream:
        return await respond(http, streamed(batches, request.n, Later(served)), EVENTS)
    return await respond(http, folded(batches, request.n, served), JSON)


def order(body: Body, settings: Settings) -> Request:
    """What the body asks for. Raises `BadRequest`."""
    request = body.request(settings.n, settings.stop)
    if request.n > settings.max_n:
        raise BadRequest(f"n: {request.n} completions; {settings.max_n} are the most (--max-n)", param="n")
    return request


# ── in step ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Word(Struct, frozen=True):
    """What one choice says in one step; with its last comes its end."""

    index: int
    text: str
    end: Done | None


@dataclass(slots=True, eq=False)
class Strand:
    """One choice: what it has said and nobody was told yet."""

    texts: deque[str] = field(default_factory=deque)
    end: Done | None = None


class Loom:
    """Puts choices back in step: a step is told when each of those that still speak has said its word.

    Engines decode a step at a time, but several steps may arrive at once, and a choice may have begun later.
    """

    def __init__(self, n: int) -> None:
        self.live = {index: Strand() for index in range(n)}

    def hear(self, event: Text | Done) -> None:
        strand = self.live[event.choice]
        if isinstance(event, Text):
            strand.texts.append(event.text)
        else:
            # What was held back belongs to the last word, if that is still here.
            strand.texts.append(strand.texts.pop() + event.text if strand.texts else event.text)
            strand.end = event

    def words(self) -> Iterator[Word]:
        """The steps that are complete, each by ascending index."""
        while self.live and all(strand.texts for strand in self.live.values()):
            for index, strand in list(self.live.items()):
                text = strand.texts.popleft()
                end = None if strand.texts else strand.end
                if end:
                    del self.live[index]
                yield Word(index, text, end)


async def streamed(batches: AsyncGenerator[list[Answer], None], n: int, shape: Shape) -> AsyncGenerator[bytes, None]:
    """The answer as events, one part a batch. When some are out already, an error can only be the last of them."""
    loom, has_begun = Loom(n), False
    async with aclosing(batches):
        try:
            async for batch in batches:
                if part := b"".join(told(batch, loom, shape)):
                    has_begun = True
                    yield part
        except PlaitError as error:
            if not has_begun:
                raise
            yield shape.failure(error.message)


def told(batch: list[Answer], loom: Loom, shape: Shape) -> Iterator[bytes]:
    for event in batch:
        match event:
            case Started():
                yield shape.opening()
            case Resuming():
                yield shape.pause()
            case Text() | Done():
                loom.hear(event)
    for word in loom.words():
        yield shape.word(word.index, word.text, word.end)
        if not loom.live and word.end:
            yield shape.closing()


async def folded(batches: AsyncGenerator[list[Answer], None], n: int, served: Served) -> AsyncGenerator[bytes, None]:
    """The answer in one part."""
    said = await common.fold(batches, n)
    yield jsonify(whole(served, said.texts, said.reasons))


# ── what else it tells ───────────────────────────────────────────────────────────────────────────────────────────


async def list_models(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /v1/models`."""
    models = fleet.models()
    if not models:
        raise Unavailable(NOT_READY)
    engines = [Engine(STATES[served.state], served.path) for served in models]
    return Response(jsonify(EngineList(engines)), media_type=JSON)


async def health(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /health`: of the model that completions would get."""
    if common.find(fleet, None).state != "ready":
        raise Unavailable(NOT_READY)
    return Response(jsonify(Note("Engine ready.")), media_type=JSON)
