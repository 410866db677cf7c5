"""The gateway as an ASGI app: what a request passes on its way to a route, and what becomes of errors.

A dialect is one line in `DIALECTS`. Every error is rendered once, here, by the dialect whose path was asked; what is
no `PlaitError` is a defect of ours, and only the log learns more of it than its request's id.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cache

import anyio
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait import log
from plait.config import Config
from plait.dialects import bitnet_http, llm_http, openai, sentient, server_parallel, srb
from plait.errors import MethodNotAllowed, NotFound, PlaitError, Unauthorized, Unavailable
from plait.fleet.base import Fleet
from plait.gateway import admin, openapi
from plait.gateway.listeners import is_private
from plait.gateway.table import Dialect, Table
from plait.gateway.terms import BoundFleet, TermsOfRequest
from plait.gateway.traffic import Traffic
from plait.web.access import AdminCheck, HostCheck, KeyCheck
from plait.web.guard import BodyLimits

logger = logging.getLogger(__name__)

HEARING_SECONDS = 1.0
"""What is left of a body may be sent for so long after the answer to it."""
DIALECTS = (
    Dialect("openai", openai.routes, openai.refuse, documents=openai.DOCUMENTS),
    Dialect("llm-http", llm_http.routes, llm_http.refuse),
    Dialect("sentient", sentient.routes, sentient.refuse, for_admins=(sentient.load_model,)),
    Dialect("srb", srb.routes, srb.refuse),
    Dialect("server-parallel", server_parallel.routes, server_parallel.refuse),
    Dialect("bitnet", bitnet_http.routes, bitnet_http.refuse),
)


def create_app(
    config: Config, fleet: Fleet, traffic: Traffic | None = None, dialects: Sequence[Dialect] = DIALECTS
) -> ASGIApp:
    """The whole gateway. Raises `ConfigError` when two dialects own one path."""
    server = config.server
    traffic = traffic or Traffic()

    @cache
    def document() -> bytes:
        return openapi.document(table.entries, needs_key=bool(server.api_key), has_admins=bool(server.admin_key))

    own, aliases = admin.routes(fleet, traffic, document), admin.aliases(fleet, traffic)
    table = Table(dialects, server.dialect, BoundFleet(fleet), own, aliases, admin.FOR_ADMINS)
    app: ASGIApp = Router(table.routes(), redirect_slashes=False)
    app = BodyLimits(app, server.max_body, server.body_timeout)
    app = TermsOfRequest(app, server.deadline)
    if server.admin_key:
        app = AdminCheck(app, server.admin_key, table.is_for_admins)
    if server.api_key:
        app = KeyCheck(app, (*server.api_key, *server.admin_key), admin.OPEN_PATHS)
    elif is_private(server):
        # With keys it would only stand in a proxy's way: a page that gets here under another name has none.
        app = HostCheck(app)
    app = Gateway(app, table, traffic)
    if server.cors_origin:
        app = Cors(app, table, server.cors_origin)
    return app


class Cors(CORSMiddleware):
    """Lets pages of these origins call the preferred dialects. What loads and stops models is not for them."""

    def __init__(self, app: ASGIApp, table: Table, origins: Sequence[str]) -> None:
        super().__init__(app, origins, allow_methods=["GET", "POST", "DELETE"], allow_headers=["*"])
        self.table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called = super().__call__ if self.table.is_for_pages(scope) else self.app
        await called(scope, receive, send)


class Gateway:
    """The outermost layer: names each request, counts it, and turns what it raises into an answer."""

    def __init__(self, app: ASGIApp, table: Table, traffic: Traffic) -> None:
        self.app, self.table, self.traffic = app, table, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with log.one_request() as request_id, self.traffic.one_request():
            # Makes the router raise its 404 and 405 instead of answering with plain text.
            scope["app"] = self
            exchange = Exchange(scope, receive, send, request_id)
            try:
                await self._answer(scope, exchange)
            finally:
                if exchange.status:
                    self.traffic.statuses[exchange.status] += 1

    async def _answer(self, scope: Scope, exchange: "Exchange") -> None:
        try:
            if self.traffic.is_draining and scope["path"] not in admin.PROBES:
                exchange.is_last = True
                raise Unavailable("the server is shutting down")
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.status:
                raise
            response = self.table.dialect(scope).refuse(_known(error, scope))
            response.headers.update(_headers(error))
            await response(scope, exchange.receive, exchange.send)


def _known(error: Exception, scope: Scope) -> PlaitError:
    """The error as one of ours."""
    match error:
        case PlaitError():
            return error
        case HTTPException(status_code=404):
            return NotFound(f"there is nothing at {scope['path']}")
        case HTTPException(status_code=405):
            return MethodNotAllowed(f"{scope['path']} does not take {scope['method']}")
    logger.error("a defect of ours", exc_info=error)
    return PlaitError(f"an internal error; the log says more about request {log.request_id()}")


def _headers(error: Exception) -> Mapping[str, str]:
    """What HTTP wants said besides, whatever the dialect."""
    match error:
        case Unauthorized():
            return {"www-authenticate": "Bearer"}
        case PlaitError(retry_after=int(seconds)):
            return {"retry-after": str(seconds)}
        case HTTPException(headers=headers) if headers:
            return headers
    return {}


class Exchange:
    """One request's receive and send, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.status = 0
        """Of the answer, once it has begun."""
        self.is_last = False
        """Whether the client is to come back on another connection, where somebody else may answer."""
        self._receive, self._send = receive, send
        self._headers = [(b"x-request-id", request_id.encode())]
        self._has_unread_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        message = await self._receive()
        self._has_unread_body = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # An unread body would be read, however long it is, in search of the next request.
            if self.is_last or self._has_unread_body:
                self._headers.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", ()), *self._headers]
        elif self._has_unread_body and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._hear_out()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _hear_out(self) -> None:
        """Whoever still sends when its connection is closed does not read the answer: drop the rest, for a while."""
        with anyio.move_on_after(HEARING_SECONDS):
            while self._has_unread_body:
                await self.receive()
