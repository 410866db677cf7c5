"""From a request's body to a value that is what its type says, or to an error that names the field at fault.

Nothing here trusts its input: the size and the time of a body are bounded while it is read, and its nesting before it
is parsed. msgspec itself refuses NaN, numbers that no float holds and lone surrogates. What may take long is done on a
thread of its own, one body after the other, and the event loop goes on.
"""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.errors import BadRequest, BodyTooLarge, SlowRequest, UnsupportedMedia
from plait.web.scan import scan

INLINE_BYTES = 32_768
"""A longer body may hold so many keys that the event loop would be missed."""

_reader = ThreadPoolExecutor(1, "large bodies")
_JSON = re.compile(r"application/(?:[^/\s]+\+)?json")

T = TypeVar("T")


class BodyLimits:
    """ASGI middleware: a body that is too long or too slow ends its request while it is read, before it is kept."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout: float) -> None:
        self.app, self.max_bytes, self.timeout = app, max_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _announced(scope) > self.max_bytes:
                raise _too_large(self.max_bytes)
            receive = _Meter(receive, self.max_bytes, self.timeout)
        await self.app(scope, receive, send)


class _Meter:
    """One request's `receive`, that counts what it lets through."""

    def __init__(self, receive: Receive, max_bytes: int, timeout: float) -> None:
        self.receive, self.max_bytes, self.timeout = receive, max_bytes, timeout
        self.n_bytes = 0
        self.deadline: float | None = None
        self.is_complete = False

    async def __call__(self) -> Message:
        if self.is_complete:
            return await self.receive()
        message = await self._receive_in_time()
        self.n_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self.n_bytes > self.max_bytes:
            raise _too_large(self.max_bytes)
        return message

    async def _receive_in_time(self) -> Message:
        self.deadline = self.deadline or asyncio.get_running_loop().time() + self.timeout
        try:
            async with asyncio.timeout_at(self.deadline):
                return await self.receive()
        except TimeoutError:
            raise SlowRequest(f"the body did not arrive within {self.timeout:g} seconds") from None


def _announced(scope: Scope) -> int:
    """What the request says of its body's length; servers pass on numbers only."""
    return int(Headers(scope=scope).get("content-length", 0))


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes")


async def json(request: Request, kind: type[T]) -> T:
    """The request's body as a `kind`."""
    return await aside(decode, await body(request), kind)


async def aside(decode: Callable[[bytes, type[T]], T], body: bytes, kind: type[T]) -> T:
    """`decode(body, kind)`, elsewhere than on the event loop if the body is large. Raises what that raises."""
    if len(body) <= INLINE_BYTES:
        return decode(body, kind)
    return await asyncio.get_running_loop().run_in_executor(_reader, decode, body, kind)


async def body(request: Request) -> bytes:
    """The request's body, which must say that it is JSON: a browser cannot send that across origins unasked."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type):
        raise UnsupportedMedia(f"the content type must be application/json, not {media_type or 'absent'}")
    return await _read(request)


async def untyped_json(request: Request, kind: type[T]) -> T:
    """The same for programs whose clients need not say that it is JSON; browsers, which name their origin, must."""
    if "origin" in request.headers:
        return await json(request, kind)
    return await aside(decode, await _read(request), kind)


async def _read(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMedia(f"a body that is compressed with {encoding} is not read")
    try:
        return await request.body()
    except ClientDisconnect:
        raise BadRequest("the body ended before it was complete") from None


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as a `kind`; the `BadRequest` names the field that is at fault."""
    scan(body)
    try:
        # Strings that are passed over may be no UTF-8 to msgspec.
        body.decode()
        value = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_value(str(error)) from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not valid JSON: it is not UTF-8") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    return value


def _wrong_value(problem: str) -> BadRequest:
    """msgspec says "… - at `$.n`", or "… - at `key` in `$.n`", or "Object missing required field `n`"."""
    problem, _, place = problem.partition(" - at `")
    path = place.removeprefix("key` in `").strip("$`").removeprefix(".")
    absent = re.fullmatch(r"Object missing required field `(.*)`", problem)
    if absent:
        path = f"{path}.{absent[1]}" if path else absent[1]
        return BadRequest(f"{path} is required", param=path)
    return BadRequest(f"{path}: {problem}" if path else problem, param=path or None)
