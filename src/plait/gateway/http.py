"""HTTP on one connection: uvicorn's protocol, with limits that it lacks on connections, heads, and unread answers.

A head that is long in coming, or long, ends its connection, and so does one connection too many; no route ever hears of
it. A client that takes nothing of what there is for it counts as gone.
"""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from plait.web.respond import BrokenOff

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_SURPLUS = 64
"""Connections beyond the cap that are told so; more of them are cut off without a word."""
SURPLUS_SECONDS = 1.0
"""What one of those gets to ask something: closing before its request is read might keep the refusal from it."""
RETRY_SECONDS = 1
MAX_PIPELINED = 16
"""Requests that may lie behind the one that is being answered."""

LEAST_SILENCE, MOST_SILENCE = 5, 32_767
"""Seconds that a client's machine may say nothing before it is asked whether it is there: a machine may stand still
for some, and TCP knows no more of them."""
N_QUESTIONS = 4

DROP = struct.pack("ii", 1, 0)
"""SO_LINGER: what is not sent yet is dropped when the socket is closed, and the other end is told."""


class BadHead(Exception):
    """Ends the parser's work on a connection; what it answers is kept there."""


class Connection(HttpToolsProtocol):
    """One client's connection. Watches each head from its first byte to its last."""

    header_timeout: float
    """Seconds; a subclass says how many, because uvicorn makes the objects."""
    write_timeout: float
    """Seconds that a client may take nothing of what there is for it; the subclass's to say, too, like the next."""
    max_connections: int
    """Of all clients together."""
    _is_surplus = False
    _waiting: asyncio.TimerHandle | None = None
    """While a head is not complete: its own timer."""
    _stalling: asyncio.TimerHandle | None = None
    """While nothing more is written to the client before it takes some of what is there."""
    _n_head_bytes = 0
    _refusal = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        with contextlib.suppress(OSError):  # it is closed already
            watch(transport.get_extra_info("socket"), self.write_timeout)
        n_surplus = len(self.connections) - self.max_connections
        if n_surplus > MAX_SURPLUS:
            transport.abort()
            return
        if n_surplus > 0:
            self._is_surplus, self.header_timeout = True, SURPLUS_SECONDS
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_stalling()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        self._stop_stalling()
        super().resume_writing()
        self._await_end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_end()

    def data_received(self, data: bytes) -> None:
        if self._is_surplus:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        head = self._waiting
        super().data_received(data)
        if head and head is self._waiting:
            self._n_head_bytes += len(data)
            if self._n_head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not (self._waiting or self._is_answering() or self.transport.is_closing()):
            # An empty line has ended uvicorn's wait for the next request, and is none to the parser.
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._waiting:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        if len(self.url) > MAX_HEAD_BYTES:
            self._give_up(HTTPStatus.REQUEST_URI_TOO_LONG)
        n_bytes = sum(len(name) + len(value) for name, value in self.headers)
        if n_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if len(self.pipeline) == MAX_PIPELINED:
            self._give_up(HTTPStatus.TOO_MANY_REQUESTS)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._waiting:
            # The head behind the answer may have lain unread: its time begins now.
            self._await_head()
        self._await_end()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has stopped."""
        self._refuse(self._refusal)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def run(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            try:
                await app(scope, receive, send)
            except BrokenOff:
                # uvicorn would do the same, and take it for a defect.
                cycle.response_complete = True
                self.transport.close()
                self._await_end()

        super()._start_asgi_task(cycle, run)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._n_head_bytes = 0
        self._waiting = self.loop.call_later(self.header_timeout, self._time_out)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None

    def _time_out(self) -> None:
        if self._is_answering():
            self._await_head()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE if self._is_surplus else HTTPStatus.REQUEST_TIMEOUT)

    def _await_end(self) -> None:
        """A closed connection ends when its client has taken all, unless it takes nothing."""
        if self.transport.is_closing() and not self._stalling:
            self._await_taking()

    def _await_taking(self) -> None:
        self._stop_stalling()
        n_left = self.transport.get_write_buffer_size()
        if n_left:
            self._stalling = self.loop.call_later(self.write_timeout, self._look_at_taking, n_left)

    def _look_at_taking(self, n_before: int) -> None:
        """Nothing was written meanwhile, so less is left if anything was taken."""
        if self.transport.get_write_buffer_size() < n_before:
            self._await_taking()
        else:
            # Or else the kernel would go on with what it has taken over.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DROP)
            self.transport.abort()

    def _stop_stalling(self) -> None:
        if self._stalling:
            self._stalling.cancel()
            self._stalling = None

    def _is_answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _is_mid_answer(self) -> bool:
        """Whether something written now would stand in the middle of an answer."""
        return bool(self.pipeline) or (self._is_answering() and self.cycle.response_started)

    def _give_up(self, status: HTTPStatus) -> None:
        self._refusal = status
        raise BadHead

    def _refuse(self, status: HTTPStatus) -> None:
        self._stop_waiting()
        if not self._is_mid_answer() and not self.transport.is_closing():
            lines = [f"HTTP/1.1 {status.value} {status.phrase}", "connection: close", "content-length: 0"]
            if status is HTTPStatus.SERVICE_UNAVAILABLE:
                lines.append(f"retry-after: {RETRY_SECONDS}")
            self.transport.write("\r\n".join([*lines, "", ""]).encode())
        self.transport.close()


def watch(connection: socket.socket, seconds: float) -> None:
    """Have the kernel find out when a client's machine is gone without a word: after twice so many seconds."""
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _questions(seconds):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _questions(seconds: float) -> Iterator[tuple[int, int]]:
    """TCP's options, as far as the platform has them: when it asks, how often, and how long it waits for an answer."""
    silence = min(max(math.ceil(seconds), LEAST_SILENCE), MOST_SILENCE)
    options = {
        "TCP_KEEPIDLE": silence,
        "TCP_KEEPINTVL": silence // N_QUESTIONS,
        "TCP_KEEPCNT": N_QUESTIONS,
        "TCP_USER_TIMEOUT": 2 * silence * 1000,
    }
    return ((getattr(socket, name), value) for name, value in options.items() if hasattr(socket, name))
