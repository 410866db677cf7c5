"""From a stream of parts to an HTTP answer; the only module that knows of clients hanging up.

The first part is awaited before the status line is sent, so whatever goes wrong until then is a proper HTTP error, for
streams too. A client that leaves closes the parts, and closing them cancels the work behind; one that stops reading is
made to leave by its connection. Each part is handed to the server at once; the event loop joins what is handed over in
one turn into one write.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from plait.web.leaving import leavable

JSON = "application/json"
CLIENT_LEFT = 499
"""nginx's status for a request whose client did not wait. Nobody reads it but logs and tests."""


class BrokenOff(Exception):
    """What parts raise that cannot go on and have no words for it: the client's transfer ends without its end.

    It is no error of anybody's, and whoever raises it has told the log why.
    """


async def respond(request: Request, parts: AsyncGenerator[bytes, None], media_type: str) -> Response:
    """Answer with `parts`: joined, with a Content-Length, if they are JSON; else each as it comes."""
    async with while_connected(request.receive):
        if media_type == JSON:
            return Response(b"".join([part async for part in parts]), media_type=JSON)
        return Stream(await anext(parts), parts, media_type)
    return Response(status_code=CLIENT_LEFT)


class Stream(Response):
    """The first part and those still to come. Owns them: they are closed when the answer ends, however it ends."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], media_type: str) -> None:
        # Not Response's own: that would take an absent body for an empty one and say Content-Length: 0.
        self.status_code, self.media_type, self.background = 200, media_type, None
        # Said here, and not left to Response, which would add a charset to it.
        self.init_headers({"content-type": media_type, "cache-control": "no-store", "x-accel-buffering": "no"})
        self.first, self.rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.rest), while_connected(receive):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            async for part in self.rest:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block until it ends or the client leaves; leaving is cancelling.

    Not a task group: that wraps errors in an ExceptionGroup, and nobody would know them by their class.
    """
    async with leavable() as connection:
        watcher = asyncio.create_task(_watch(receive, connection))
        try:
            yield
        finally:
            watcher.cancel()


async def _watch(receive: Receive, connection: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    connection.reschedule(0)
