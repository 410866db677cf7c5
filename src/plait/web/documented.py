"""What `/openapi.json` says of a route that its path and its methods do not: one value, beside the route's table.

Types say what is taken and answered; whoever writes the document asks msgspec what they look like as JSON.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct
from starlette.responses import Response

from plait.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    Forbidden,
    GenerationFailed,
    ModelNotFound,
    Overloaded,
    PlaitError,
    PoisonousRequest,
    SlowRequest,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    WorkerDied,
)
from plait.web.respond import JSON

EVENTS = "text/event-stream"

Refusals = tuple[type[PlaitError], ...]

EVERYWHERE: Refusals = (PlaitError, BadRequest, Unauthorized, Forbidden, BodyTooLarge, Unavailable)
"""What any path may answer before its endpoint is asked. BadRequest: of a head that makes no sense."""
OF_BODIES: Refusals = (SlowRequest, UnsupportedMedia)
GENERATING: Refusals = (
    ModelNotFound,
    Overloaded,
    GenerationFailed,
    PoisonousRequest,
    WorkerDied,
    DeadlineExceeded,
)


class Says(Struct, frozen=True):
    """One thing that a route may answer. `kind` is a type: of the JSON, or of each event's data; None: no body."""

    kind: object = None
    status: int = 200
    media_type: str = JSON
    end: str = ""
    """Of a stream of events: the data of the last one, if that is no JSON."""


class Documented(Struct, frozen=True):
    """One route, as far as its function says it; routes that run this function are found by it."""

    endpoint: Callable[..., Awaitable[Response]]
    summary: str
    answers: tuple[Says, ...]
    body: object = None
    """The type of the JSON that it reads; None: it reads none."""
    raises: Refusals = ()
    """Its own refusals, besides those of every path and of every body."""

    @property
    def refusals(self) -> Refusals:
        return EVERYWHERE + (OF_BODIES if self.body else ()) + self.raises


class Documents(Struct, frozen=True):
    """What a dialect says of its routes, or of some of them."""

    routes: tuple[Documented, ...] = ()
    refusal: object = None
    """The type of the JSON that it says no with; None: no JSON, or one that it does not tell."""


UNDOCUMENTED = Documents()
