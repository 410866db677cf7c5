"""The operator's paths: is the server alive, is it ready, what is it doing, which models does it serve.

Tells what the fleet and the traffic say of themselves; keeps nothing.
"""

from collections.abc import Callable, Iterator
from functools import partial

import msgspec
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plait import metrics
from plait.errors import Conflict, ModelLoadFailed, ModelNotFound, OutOfMemory
from plait.fleet.base import Fleet, Replica, Served, State
from plait.gateway import measures
from plait.gateway.traffic import Traffic
from plait.protocol import ModelInfo
from plait.web import guard
from plait.web.documented import Documented, Says
from plait.web.respond import JSON

OPEN_PATHS = frozenset({"/livez"})
"""Those that need no API key."""
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Those that are answered to the very end."""
PULSE_SECONDS = 5.0
"""An idle engine that has been silent for longer is not there, whatever its process does."""


def routes(fleet: Fleet, traffic: Traffic, document: Callable[[], bytes]) -> list[Route]:
    """The operator's table. `document` makes what `/openapi.json` says."""
    return [
        Route("/livez", partial(live, traffic)),
        Route("/readyz", partial(ready, fleet, traffic)),
        Route("/metrics", partial(measure, fleet, traffic)),
        Route("/openapi.json", partial(describe, document)),
        Route("/admin/models", partial(list_models, fleet)),
        Route("/admin/models", partial(load_model, fleet), methods=["POST"]),
        Route("/admin/models/{name:path}", partial(unload_model, fleet), methods=["DELETE"]),
        Route("/admin/cache", partial(empty_cache, fleet), methods=["DELETE"]),
    ]


def aliases(fleet: Fleet, traffic: Traffic) -> list[Route]:
    """What the operator's tools may call by other names, where no dialect does."""
    return [Route("/health", partial(ready, fleet, traffic))]


class Liveness(Struct, frozen=True):
    """What who may know nothing of the models is told: that the event loop turns, and whether it takes requests."""

    live: bool
    draining: bool


async def live(traffic: Traffic, request: Request) -> Response:
    """`GET /livez`."""
    return _json(Liveness(True, traffic.is_draining))


class Readiness(Struct, frozen=True):
    """Whether requests should be sent here; if not, why."""

    ready: bool
    reasons: list[str] = []


async def ready(fleet: Fleet, traffic: Traffic, request: Request) -> Response:
    """`GET /readyz`, `GET /health`: the start is over, and every model has an engine that lives, as its pulse says."""
    reasons = list(_reasons(fleet, traffic))
    return _json(Readiness(not reasons, reasons), 503 if reasons else 200)


def _reasons(fleet: Fleet, traffic: Traffic) -> Iterator[str]:
    """Why not. Nobody relies on a model that could not be loaded: it has never been served."""
    if traffic.is_draining:
        yield "the server is shutting down"
    models = [model for model in fleet.models() if not model.was_refused]
    if not models:
        yield "no model is served"
    for model in models:
        if model.state == "ready" and not _has_pulse(model):
            yield f"{model.name}: no engine has spoken for too long"
        if model.state not in ("ready", "unloading"):
            yield f"{model.name} is {model.state}: {model.reason}"
    if traffic.is_preparing:
        yield "the server is starting"


def _has_pulse(model: Served) -> bool:
    return any(replica.state == "ready" and _speaks(replica) for replica in model.replicas)


def _speaks(replica: Replica) -> bool:
    """Recently enough: an engine speaks between its steps, and these may be long."""
    silence = replica.seconds_since_pulse
    return silence is not None and silence < (replica.patience if replica.n_running else PULSE_SECONDS)


async def measure(fleet: Fleet, traffic: Traffic, request: Request) -> Response:
    """`GET /metrics`, as Prometheus reads it."""
    families = measures.families(fleet.models(), traffic)
    return Response(metrics.render(families), media_type=CONTENT_TYPE_LATEST)


async def describe(document: Callable[[], bytes], request: Request) -> Response:
    """`GET /openapi.json`."""
    return Response(document(), media_type=JSON)


class LoadBody(Struct, frozen=True):
    """What `POST /admin/models` asks for: `file.gguf`, `hf:owner/repo[:quant]`, or `name=either`."""

    model: str


class ReplicaView(Struct, frozen=True):
    """A replica, as the operator sees it."""

    pid: int | None
    state: State
    seconds_since_pulse: float | None
    n_restarts: int


class ModelView(Struct, frozen=True):
    """A served model, as the operator sees it."""

    name: str
    path: str
    created: int
    state: State
    reason: str
    info: ModelInfo | None
    replicas: list[ReplicaView]


async def list_models(fleet: Fleet, request: Request) -> Response:
    """`GET /admin/models`."""
    return _json([_view(model) for model in fleet.models()])


async def load_model(fleet: Fleet, request: Request) -> Response:
    """`POST /admin/models`: answers when the model is ready. A client that leaves does not stop the load."""
    body = await guard.json(request, LoadBody)
    return _json(_view(await fleet.load(body.model)), 201)


async def unload_model(fleet: Fleet, request: Request) -> Response:
    """`DELETE /admin/models/NAME`: answers when the model is gone, from the list if it was never loaded."""
    await fleet.unload(request.path_params["name"])
    return Response(status_code=204)


async def empty_cache(fleet: Fleet, request: Request) -> Response:
    """`DELETE /admin/cache`: answers when the workers were told, between two of their steps."""
    fleet.forget()
    return Response(status_code=204)


DOCUMENTED = (
    Documented(live, "Whether the server lives; needs no key", (Says(Liveness),)),
    Documented(ready, "Whether requests should be sent here", (Says(Readiness), Says(Readiness, 503))),
    Documented(measure, "Figures for Prometheus", (Says(str, media_type=CONTENT_TYPE_LATEST),)),
    Documented(describe, "This document", (Says(dict),)),
    Documented(list_models, "The models that are served, and their processes", (Says(list[ModelView]),)),
    Documented(
        load_model,
        "Serve one more model; answers when it is ready",
        (Says(ModelView, 201),),
        body=LoadBody,
        raises=(Conflict, ModelNotFound, ModelLoadFailed, OutOfMemory),
    ),
    Documented(
        unload_model,
        "Stop serving a model; answers when it is gone",
        (Says(status=204),),
        raises=(Conflict, ModelNotFound),
    ),
    Documented(empty_cache, "Forget all prefixes, in RAM and on disk", (Says(status=204),)),
)


FOR_ADMINS = (list_models, load_model, unload_model, empty_cache)
"""What only the holder of an admin key may call, where there is one."""


def _view(model: Served) -> ModelView:
    return msgspec.convert(model, ModelView, from_attributes=True)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
