"""The dialect of llm-http: `POST /stream`, whose answer is plain text with a line, and an HTTP chunk, for each token.

Owns nothing that outlives a request but the files of the prompts that it was asked to keep. docs/dialects/llm_http.md
says what is served, and where that program's README and its code differ.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct, structs
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from plait.config import ConfigError
from plait.dialects import common, llm_http_prompts
from plait.dialects.common import Factor
from plait.dialects.llm_http_prompts import Kept, RefusedPrompt
from plait.errors import BadRequest, MethodNotAllowed, NotFound, PlaitError, UnsupportedMedia
from plait.fleet.base import Fleet
from plait.protocol import Answer, Done, Pin, RawPrompt, Request, Sampling, Started, Text, TokenPrompt
from plait.web import access, guard
from plait.web.respond import BrokenOff, respond

logger = logging.getLogger(__name__)

MOST = 2**63 - 1
"""Not all of that program's 64 bits, but as many as can be needed."""

MOST_CANDIDATES = 10**9
"""More than any vocabulary has, and than samplers take."""

Count = Annotated[int, Meta(ge=0, le=MOST)]
Size = Annotated[int, Meta(ge=1, le=MOST)]
"""Where the original died of 0."""


class Options(Struct, frozen=True):
    """What a request may choose for itself."""

    num_predict: int = 32
    n_batch: int = 8
    top_k: int = 40
    top_p: float = 0.95
    repeat_penalty: float = 1.3
    temp: float = 0.8


class Settings(Struct, frozen=True):
    """What the program's flags choose."""

    options: Options = Options()
    repeat_last_n: int = 64
    prompts: Path | None = None
    """The folder of kept prompts; None: where they are kept if nobody says otherwise."""
    restored: tuple[int, ...] = ()
    """The tokens that every request goes on from."""
    restored_from: Path | None = None
    """Their file."""

    def path_of(self, number: int, tenant: str) -> Path:
        """Where the prompt with this number is kept. Nobody restores what the holder of another API key said."""
        folder = self.prompts or llm_http_prompts.default_folder()
        return llm_http_prompts.path_of(folder / tenant, number)


class Body(Struct, frozen=True):
    """What `POST /stream` may say. null is the same as absent; what has another name is ignored."""

    prompt: str
    num_predict: Count | None = None
    n_batch: Size | None = None
    top_k: Size | None = None
    top_p: Annotated[float, Meta(ge=0)] | None = None
    """1 and more: off."""
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    temp: Factor | None = None
    cache: Count | None = None
    """Go on from the prompt with this number, or if there is none, keep this one under it; 0: neither."""

    def options(self, defaults: Options) -> Options:
        fields = {name: getattr(self, name) for name in Options.__struct_fields__}
        return structs.replace(defaults, **{name: value for name, value in fields.items() if value is not None})

    def request(self, settings: Settings, before: tuple[int, ...] = ()) -> Request:
        """`before`: the tokens that it goes on from."""
        options = self.options(settings.options)
        sampling = Sampling(
            temperature=options.temp,
            top_k=min(options.top_k, MOST_CANDIDATES),
            top_p=min(options.top_p, 1.0),
            min_p=0.0,
            repeat_penalty=options.repeat_penalty,
            repeat_last_n=settings.repeat_last_n,
        )
        return Request(
            prompt=RawPrompt(self.prompt, before),
            max_tokens=options.num_predict,
            prompt_chunk=options.n_batch,
            sampling=sampling,
            echo=True,
        )


DEFAULT = Settings()
"""What `plait serve` serves, where there are no such flags."""


def routes(fleet: Fleet, settings: Settings = DEFAULT) -> list[Route]:
    """This dialect's table."""
    return [Route("/stream", partial(stream, fleet, settings), methods=["POST"])]


def refuse(error: PlaitError) -> Response:
    """That program's way of saying no, which is a bare status; for what could not happen to it, with a reason."""
    match error:
        case BadRequest() | UnsupportedMedia():
            return Response(status_code=400)
        case NotFound() | MethodNotAllowed():
            return Response(status_code=404)
    return Response(f"{error.message}\n", error.status, media_type="text/plain")


async def restore(settings: Settings, fleet: Fleet) -> None:
    """Have the model read what every request goes on from. Raises `ConfigError` if it cannot."""
    prompt = TokenPrompt(list(settings.restored))
    request = Request(prompt=prompt, max_tokens=1, pin=pin_for(settings.restored_from))
    try:
        async with aclosing(telling(fleet.generate(None, request), "is restored at the start")) as answer:
            async for _ in answer:
                pass
    except BadRequest as error:
        raise ConfigError(f"--restore-prompt: {error}") from error


async def stream(fleet: Fleet, settings: Settings, http: HttpRequest) -> Response:
    """`POST /stream`."""
    body = await guard.untyped_json(http, Body)
    path = settings.path_of(body.cache, http.scope.get(access.TENANT, "")) if body.cache else None
    found = await look(fleet, path) if path else NOTHING
    before = found.prompt.prefix(body.prompt) if found.prompt else settings.restored
    request = structs.replace(body.request(settings, before), pin=to_pin(settings, path, found))
    is_kept, is_mute = bool(path and found.keeps_for), request.max_tokens == 0
    # A prompt that nothing is to follow is not computed, unless it is to be kept.
    answer = fleet.generate(None, structs.replace(request, max_tokens=1) if is_kept and is_mute else request)
    if path and is_kept:
        answer = keeping(answer, path, Kept(found.keeps_for, (), body.prompt, len(before)))
    if is_mute:
        answer = muted(answer)
    if what := found.what or (before and "goes on from --restore-prompt"):
        answer = telling(answer, what)
    return await respond(http, lines(answer, len(before)), "text/plain")


class Found(NamedTuple):
    """What there is under a request's number."""

    what: str = ""
    """What becomes of the request's prompt, for the log."""
    prompt: Kept | None = None
    keeps_for: str = ""
    """Nothing yet, so the request's own prompt is kept, as this model's."""


NOTHING = Found()


async def look(fleet: Fleet, path: Path) -> Found:
    """The kept prompt. One that cannot be used is refused and stays where it is, and the request runs without it."""
    try:
        model = await asyncio.to_thread(llm_http_prompts.model_of, common.find(fleet, None))
        return Found(f"is restored from {path}", await asyncio.to_thread(llm_http_prompts.load, path, model))
    except FileNotFoundError:
        return Found(f"is to be kept as {path}", keeps_for=model)
    except (OSError, RefusedPrompt, PlaitError) as error:
        logger.warning("%s is not restored: %s", path, error)
        return NOTHING


def to_pin(settings: Settings, path: Path | None, found: Found) -> Pin | None:
    """What of a request's prompt stays on disk: what it goes on from, or all of a new one."""
    if found.keeps_for:
        return pin_for(path)
    if found.prompt:
        return pin_for(path, len(found.prompt.tokens))
    return pin_for(settings.restored_from, len(settings.restored))


def pin_for(path: Path | None, n_tokens: int | None = None) -> Pin | None:
    return Pin(os.fsencode(path.absolute()), n_tokens) if path else None


async def telling(answer: AsyncGenerator[Answer, None], what: str) -> AsyncGenerator[Answer, None]:
    """The same answer. The log learns how much of its prompt is not computed."""
    async with aclosing(answer):
        async for event in answer:
            if isinstance(event, Started):
                found = event.cached
                where = f"running {found.running}, idle {found.idle}, RAM {found.ram}, disk {found.disk}"
                logger.info("a prompt %s: %d tokens, %d cached (%s)", what, len(event.prompt_tokens), found.n, where)
            yield event


async def keeping(answer: AsyncGenerator[Answer, None], path: Path, prompt: Kept) -> AsyncGenerator[Answer, None]:
    """The same answer. When its prompt has been read, and before more is said, that is kept: `prompt`, whose tokens
    are not known before."""
    async with aclosing(answer):
        async for event in answer:
            match event:
                case Started():
                    prompt = structs.replace(prompt, tokens=tuple(event.prompt_tokens))
                case Text() | Done() if prompt.tokens:
                    await keep(path, prompt)
                    prompt = structs.replace(prompt, tokens=())
            yield event


async def muted(answer: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
    """The same answer without what was written."""
    async with aclosing(answer):
        async for event in answer:
            if not isinstance(event, Text):
                yield event


async def keep(path: Path, prompt: Kept) -> None:
    """Save a prompt. That it cannot be is no reason not to answer."""
    try:
        await asyncio.to_thread(llm_http_prompts.save, path, prompt)
    except (OSError, PlaitError) as error:
        logger.warning("the prompt is not kept as %s: %s", path, error)


async def lines(answer: AsyncGenerator[Answer, None], n_restored: int) -> AsyncGenerator[bytes, None]:
    """One part a token: the prompt's without what was restored, then the answer's.

    There is no word for a failure: a prompt that the model cannot take has no text at all, and what fails later breaks
    off where it is.
    """
    has_begun = False
    async with aclosing(answer):
        try:
            async for event in answer:
                match event:
                    case Started():
                        has_begun = True
                        yield b""
                        for text in event.prompt_texts[n_restored:]:
                            if text is not None:
                                yield line(text)
                    case Text(text=text) if text:
                        yield line(text)
        except PlaitError as error:
            if not has_begun and not isinstance(error, BadRequest):
                raise
            logger.warning("an answer ends early: %s", error)
            if has_begun:
                raise BrokenOff from error
            yield b""


def line(text: str) -> bytes:
    """A newline in the text stays one: nothing tells it from the line's end."""
    return text.encode() + b"\n"
