"""On what terms a request is answered, whatever its dialect: for whom, and until when.

Middleware takes the terms from the request's head; `BoundFleet`, between the dialects and the models, holds answers to
them. What joins the two is a context variable, which the tasks that answer a request inherit.
"""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar

from msgspec import Struct, structs
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from plait.errors import BadRequest, DeadlineExceeded
from plait.fleet.base import Fleet, Served
from plait.protocol import Answer, Request
from plait.web.access import TENANT

HEADER = "x-request-timeout"


class Terms(Struct, frozen=True):
    """One request's."""

    tenant: str = ""
    seconds: float = math.inf
    """What it gets in all."""
    deadline: float = math.inf
    """When they are over, on the event loop's clock."""

    @property
    def too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the answer was not complete within {self.seconds:g} seconds")


_NONE = Terms()
_terms: ContextVar[Terms] = ContextVar("terms", default=_NONE)


class TermsOfRequest:
    """ASGI middleware: each request has terms. The server's deadline may be brought forward by a request's own."""

    def __init__(self, app: ASGIApp, deadline: float) -> None:
        """`deadline`: seconds; 0: none."""
        self.app = app
        self.most_seconds = deadline or math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds = min(self.most_seconds, _wish(Headers(scope=scope)))
        terms = Terms(scope.get(TENANT, ""), seconds, asyncio.get_running_loop().time() + seconds)
        token = _terms.set(terms)
        try:
            await self.app(scope, receive, send)
        finally:
            _terms.reset(token)


def _wish(headers: Headers) -> float:
    """The seconds that a request gives its answer."""
    if HEADER not in headers:
        return math.inf
    try:
        seconds = float(headers[HEADER])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(f"X-Request-Timeout: a number of seconds above 0, not {headers[HEADER]!r}")
    return seconds


class BoundFleet:
    """The same fleet, whose answers keep to the terms of the request that is being answered."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def generate(self, model: str | None, request: Request) -> AsyncGenerator[Answer, None]:
        terms = _terms.get()
        answers = self._fleet.generate(model, structs.replace(request, tenant=terms.tenant))
        return answers if terms.deadline == math.inf else _in_time(answers, terms)

    def models(self) -> list[Served]:
        return self._fleet.models()

    async def load(self, source: str, name: str | None = None) -> Served:
        return await self._fleet.load(source, name)

    async def unload(self, name: str) -> None:
        await self._fleet.unload(name)

    def forget(self) -> None:
        self._fleet.forget()


async def _in_time(answers: AsyncGenerator[Answer, None], terms: Terms) -> AsyncGenerator[Answer, None]:
    """The same answer; one that is not over in time is left, which cancels it, and raises `DeadlineExceeded`.

    The timeout is round each wait, and not round the whole: between two of them this is not what would be cancelled.
    """
    async with aclosing(answers):
        while True:
            if asyncio.get_running_loop().time() >= terms.deadline:
                raise terms.too_late
            try:
                async with asyncio.timeout_at(terms.deadline):
                    event = await anext(answers)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise terms.too_late from None
            yield event
