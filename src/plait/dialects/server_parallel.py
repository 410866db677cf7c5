"""The dialect of llama.cpp's server-parallel: `/completion`, `/props` and a web page, with one system prompt for all.

From an HTTP request to an order, and from its answer to events. What requests share is in `server_parallel_state`.
docs/dialects/server_parallel.md says what is served, and where this differs from the original.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from plait.dialects import common
from plait.dialects.server_parallel_page import Page
from plait.dialects.server_parallel_state import ANY_SLOT, OWN, Persona, Settings, Shared
from plait.errors import BadRequest, ContextOverflow, Forbidden, MethodNotAllowed, NotFound, Overloaded, PlaitError
from plait.fleet.base import Fleet
from plait.protocol import Answer, Done, Resuming, Text
from plait.web import guard, sse
from plait.web.access import TENANT
from plait.web.respond import JSON, BrokenOff, respond

ALLOW_ORIGIN = {"access-control-allow-origin": "*"}
PREFLIGHT = ALLOW_ORIGIN | {"access-control-allow-methods": "*", "access-control-allow-headers": "content-type"}
PLAIN = {"content-type": "text/plain"}

Endpoint = Callable[[HttpRequest], Awaitable[Response]]

logger = logging.getLogger(__name__)


def routes(fleet: Fleet, settings: Settings = OWN) -> list[Route]:
    """This dialect's table."""
    shared, page = Shared(fleet, settings), Page(settings.folder)
    table: list[tuple[str, str, Endpoint]] = [
        ("GET", "/props", partial(show_props, shared)),
        ("POST", "/completion", partial(complete, shared)),
        ("GET", "/", page.show),
        ("GET", "/index.js", page.show),
    ]
    if settings.folder or settings.is_open:
        # Whatever is there, OPTIONS is answered.
        table.append(("GET", "/{path:path}", page.show))
    if settings.is_open:
        return [Route(path, partial(opened, endpoint), methods=[method, "OPTIONS"]) for method, path, endpoint in table]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


def refuse(error: PlaitError) -> Response:
    """This dialect's way of saying no: hardly a word, but for what brought the original down."""
    match error:
        case Overloaded():
            return Response("slot_error", 404, PLAIN)
        case NotFound() | MethodNotAllowed():
            return Response(status_code=404)
        case BadRequest() if not isinstance(error, ContextOverflow):
            return Response(status_code=500, headers={"EXCEPTION_WHAT": what(error)})
    return Response(error.message, error.status, PLAIN)


def what(error: BadRequest) -> str:
    """The words of the JSON library's exceptions, as far as clients tell them apart."""
    kind = "type_error.302" if error.param else "parse_error.101"
    words = error.message.encode("ascii", "replace").decode().split()
    return f"[json.exception.{kind}] {' '.join(words)}"


async def opened(endpoint: Endpoint, http: HttpRequest) -> Response:
    """The same, for pages of all origins."""
    if http.method == "OPTIONS":
        return Response(headers=PREFLIGHT)
    response = await endpoint(http)
    response.headers.update(ALLOW_ORIGIN)
    return response


class Props(Struct, frozen=True):
    """Who talks."""

    assistant_name: str
    user_name: str


async def show_props(shared: Shared, http: HttpRequest) -> Response:
    """`GET /props`."""
    persona = shared.persona
    return Response(msgspec.json.encode(Props(persona.assistant_name, persona.user_name)), media_type=JSON)


class Body(Struct, frozen=True):
    """What a completion asks. Other fields are ignored, as ever."""

    prompt: str = ""
    temperature: float = 0.1
    slot_id: int = ANY_SLOT
    system_prompt: str | UnsetType = UNSET
    anti_prompt: str | UnsetType = UNSET
    assistant_name: str | UnsetType = UNSET

    def persona(self) -> Persona | None:
        """The new one, if all that makes one is said."""
        if self.system_prompt is UNSET or self.anti_prompt is UNSET or self.assistant_name is UNSET:
            return None
        return Persona(self.system_prompt, self.anti_prompt, self.assistant_name, common.stops(self.anti_prompt))


async def complete(shared: Shared, http: HttpRequest) -> Response:
    """`POST /completion`."""
    body = await guard.untyped_json(http, Body)
    persona = body.persona()
    if persona and TENANT in http.scope and not shared.settings.has_one_audience:
        raise Forbidden("the system prompt is everybody's: the holder of one API key cannot switch it for the others")
    return await respond(http, streamed(shared, body, persona), "text/event-stream")


async def streamed(shared: Shared, body: Body, persona: Persona | None) -> AsyncGenerator[bytes, None]:
    """The answer in parts, of which there is one at least; with a persona, after the switch to it."""
    if persona:
        await shared.switch(persona)
    has_begun = False
    with shared.slot(body.slot_id) as slot:
        answer = shared.fleet.generate(None, await shared.request(body.prompt, body.temperature))
        try:
            async with aclosing(common.weave([answer, slot.ending()], 1)) as batches:
                async for batch in batches:
                    for event in batch:
                        has_begun = True
                        yield part(event, slot.id)
                        if isinstance(event, Done):
                            return
        except PlaitError as error:
            if not has_begun:
                raise
            # This wire has no words for it.
            logger.warning("the answer in slot %d was cut off: %s", slot.id, error.message)
            raise BrokenOff from error


class Piece(Struct, frozen=True):
    """What an event holds."""

    content: str
    slot_id: int


def part(event: Answer, slot_id: int) -> bytes:
    """One event a token. The end has none, unless half a character is left."""
    if isinstance(event, Resuming):
        return sse.RESUMING
    if isinstance(event, Text) or (isinstance(event, Done) and event.text):
        return sse.event(msgspec.json.encode(Piece(event.text, slot_id)))
    return b""
