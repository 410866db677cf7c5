"""The BitNet server's dialect: `POST /generate`, `GET /health`, `GET /model_info`, `GET /`.

That program's README is the contract, its code never ran; docs/dialects/bitnet.md says what is served. Every request
stands alone: there is no conversation that goes on, so nobody's words reach anybody else.
"""

import os
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from plait.dialects import common, lax
from plait.dialects.common import INT32_MAX, Factor, Share
from plait.dialects.lax import Invalid, Unfit
from plait.errors import (
    BadRequest,
    DeadlineExceeded,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PlaitError,
    Unavailable,
)
from plait.fleet.base import Fleet, Served
from plait.protocol import Answer, ChatMessage, ChatPrompt, Prompt, RawPrompt, Request, Sampling
from plait.web.respond import JSON, respond

SYSTEM_PROMPT = (
    "You are a helpful, harmless, and honest AI assistant. Answer the user's questions truthfully and helpfully."
)
MAX_TOKENS = 256
CONTEXT_SIZE = 2048
NOT_READY = "Model process not initialized or failed."
"""The original's words for a model that is not there."""

encode = msgspec.json.Encoder().encode


class Settings(Struct, frozen=True):
    """What the environment of that program chooses."""

    max_threads: int = len(os.sched_getaffinity(0))
    """`MAX_THREADS`; without it, the cores of this machine."""


UNSAID = Settings()


class Body(Struct, frozen=True, kw_only=True):
    """What `POST /generate` may say."""

    prompt: str
    system_prompt: str = SYSTEM_PROMPT
    max_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = MAX_TOKENS
    """null says nothing, as in the original."""
    temperature: Factor = 0.7
    top_p: Share = 0.9
    context_size: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    threads: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    conversation_mode: bool = True

    def check(self, served: Served) -> None:
        """Raise `Invalid` for a context that no slot of this model has."""
        if self.context_size is not UNSET and served.info and self.context_size > served.info.n_ctx:
            raise Invalid(Unfit("less_than_equal", le=served.info.n_ctx).at(self.context_size, "context_size"))

    def request(self, settings: Settings) -> Request:
        return Request(
            prompt=self.turns(),
            max_tokens=MAX_TOKENS if self.max_tokens is None else self.max_tokens,
            ctx_size=CONTEXT_SIZE if self.context_size is UNSET else self.context_size,
            n_threads=None if self.threads is UNSET else min(self.threads, settings.max_threads),
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
        )

    def turns(self) -> Prompt:
        """A user's turn after the system's, which may be empty and is left out then; or the prompt as it is."""
        if not self.conversation_mode:
            return RawPrompt(self.prompt)
        system = [ChatMessage("system", self.system_prompt)] if self.system_prompt else []
        return ChatPrompt([*system, ChatMessage("user", self.prompt)])


class Generated(Struct, frozen=True):
    """What `POST /generate` answers: the text, its tokens, and those of the whole prompt."""

    generated_text: str
    tokens_generated: int
    tokens_processed: int


class Health(Struct, frozen=True, omit_defaults=True):
    status: Literal["healthy", "unhealthy"]
    detail: str = ""
    """Why it is not."""


class Defaults(Struct, frozen=True):
    """What a request that says nothing but its prompt has said."""

    system_prompt: str
    max_tokens: int
    temperature: float
    top_p: float
    context_size: int
    threads: int
    conversation_mode: bool


class Info(Struct, frozen=True):
    """What `GET /model_info` answers; `context_size` and `threads` are the most that a request may ask for."""

    model: str
    model_path: str
    description: str
    parameters: int
    context_size: int
    threads: int
    instances: int
    defaults: Defaults


class Detail(Struct, frozen=True):
    """How a FastAPI program says no."""

    detail: str | tuple[lax.Problem, ...]


def routes(fleet: Fleet, settings: Settings = UNSAID) -> list[Route]:
    """This dialect's table."""
    return [
        Route("/generate", partial(generate, fleet, settings), methods=["POST"]),
        Route("/health", partial(health, fleet), methods=["GET", "POST"]),
        Route("/model_info", partial(model_info, fleet, settings)),
        Route("/", greet),
    ]


def refuse(error: PlaitError) -> Response:
    """This dialect's way of saying no."""
    status, detail = _refusal(error)
    return Response(encode(Detail(detail)), status, media_type=JSON)


def _refusal(error: PlaitError) -> tuple[int, str | tuple[lax.Problem, ...]]:
    match error:
        case Invalid(problems=problems):
            return error.status, problems
        case Unavailable() | ModelNotFound():
            return 503, NOT_READY
        case NotFound():
            return error.status, "Not Found"
        case MethodNotAllowed():
            return error.status, "Method Not Allowed"
        case DeadlineExceeded():
            return error.status, error.message
        case _ if error.status >= 500:
            return 500, f"Error generating text: {error.message}"
    return error.status, error.message


async def generate(fleet: Fleet, settings: Settings, http: HttpRequest) -> Response:
    """`POST /generate`."""
    body = await lax.read(http, Body)
    served = common.find(fleet, None)
    body.check(served)
    return await respond(http, whole(fleet.generate(served.name, body.request(settings)), body), JSON)


async def whole(answer: AsyncGenerator[Answer, None], body: Body) -> AsyncGenerator[bytes, None]:
    """The answer in one part. What the worker refuses is in the prompt: this dialect has no other text."""
    try:
        said = await common.fold(common.weave([answer], 1), 1)
    except BadRequest as error:
        raise Invalid(Unfit("value_error", error=error.message).at(body.prompt, "prompt")) from None
    yield encode(Generated(said.texts[0].strip(), said.counts.n_output, said.counts.n_prompt))


async def health(fleet: Fleet, http: HttpRequest) -> Response:
    """`GET /health`, for who restarts what is not healthy."""
    models = fleet.models()
    if models and models[0].state == "ready":
        return Response(encode(Health("healthy")), media_type=JSON)
    reason = models[0].reason if models else "no model is served"
    return Response(encode(Health("unhealthy", reason)), 503, media_type=JSON)


async def model_info(fleet: Fleet, settings: Settings, http: HttpRequest) -> Response:
    """`GET /model_info`."""
    served = common.find(fleet, None)
    if served.info is None:
        raise Unavailable(f"{served.name} is not ready: {served.reason}")
    unsaid = Body(prompt="")
    defaults = Defaults(
        system_prompt=unsaid.system_prompt,
        max_tokens=MAX_TOKENS,
        temperature=unsaid.temperature,
        top_p=unsaid.top_p,
        context_size=min(CONTEXT_SIZE, served.info.n_ctx),
        threads=served.info.n_threads,
        conversation_mode=unsaid.conversation_mode,
    )
    info = Info(
        model=served.name,
        model_path=served.path,
        description=served.info.description,
        parameters=served.info.n_params,
        context_size=served.info.n_ctx,
        threads=settings.max_threads,
        instances=len(served.replicas),
        defaults=defaults,
    )
    return Response(encode(info), media_type=JSON)


async def greet(http: HttpRequest) -> Response:
    """`GET /`, in the original's words."""
    return Response(b'{"message":"BitNet LLM API Server is running"}', media_type=JSON)
