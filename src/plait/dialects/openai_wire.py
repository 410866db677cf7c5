"""The shapes of OpenAI's wire, in and out, and what each means in `protocol`'s words. Pure: values in, values out.

llama.cpp's sampling fields come with them, under its names. Limits and defaults that are not said here are
`common.SamplingFields`' and `protocol`'s.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple

from plait import __version__
from plait.dialects import common
from plait.dialects.common import INT32_MAX, TokenId, unserved
from plait.errors import BadRequest, PlaitError
from plait.fleet.base import Served, State
from plait.protocol import (
    MAX_ADAPTERS,
    MAX_CHOICES,
    ChatMessage,
    ChatPrompt,
    Prompt,
    RawPrompt,
    Reason,
    Reproducible,
    Request,
    TokenPrompt,
)

MAX_PROMPTS = 256
"""The most prompts of one request."""

encode = msgspec.json.Encoder().encode


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Limit = Annotated[int, Meta(ge=-1, le=INT32_MAX, extra_json_schema={"not": {"const": 0}})]


class StreamOptions(Struct):
    include_usage: bool | None = None


class Body(common.SamplingFields, kw_only=True):
    """What both kinds of request may say."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n_predict: Limit | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    lora: Annotated[list[common.Adapter], Meta(max_length=MAX_ADAPTERS)] | None = None
    cache_prompt: bool | None = None
    priority: common.Priority | None = None
    reproducible: bool | None = None
    grammar: Annotated[object, unserved('""')] = None
    json_schema: Annotated[object, unserved()] = None
    response_format: Annotated[object, unserved('{"type":"text"}')] = None

    @property
    def n_choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self) -> None:
        """Raise `BadRequest` for what the types of the fields cannot say."""
        common.refuse_unserved(self)
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options: only with stream: true", param="stream_options")

    def request(self, prompt: Prompt) -> Request:
        return Request(
            prompt=prompt,
            n=self.n_choices,
            max_tokens=self.output_limit(),
            stop=common.stops(self.stop),
            sampling=self.sampling(),
            lora=common.adapter_scales(self.lora),
            cache_prompt=self.cache_prompt is not False,
            priority=self.priority or 0,
            reproducible=bool(self.reproducible),
        )

    def output_limit(self) -> int | None:
        """The one limit under its three names; none, or -1: until the model or the context ends."""
        names = ("max_tokens", "max_completion_tokens", "n_predict")
        said = {name: limit for name in names if (limit := getattr(self, name)) is not None}
        if len(set(said.values())) > 1:
            raise BadRequest(f"{' and '.join(said)} are one limit, and say different things", param=next(iter(said)))
        for name, limit in said.items():
            if limit == 0:
                raise BadRequest(f"{name}: at least 1, or -1 for no limit", param=name)
        limit = next(iter(said.values()), -1)
        return None if limit == -1 else limit


class CompletionBody(Body, kw_only=True):
    prompt: str | Annotated[list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
    echo: bool | None = None
    best_of: int | None = None
    suffix: Annotated[object, unserved('""')] = None
    logprobs: Annotated[object, unserved("false")] = None

    def check(self) -> None:
        super().check()
        if self.best_of not in (None, self.n_choices):
            raise BadRequest("best_of: only the value of n is served", param="best_of")
        if self.echo and not all(isinstance(prompt, RawPrompt) for prompt in self.prompts()):
            raise BadRequest("echo: served for prompts that are text, not for token ids", param="echo")

    def prompts(self) -> Sequence[RawPrompt] | Sequence[TokenPrompt]:
        """A string, several strings, one list of token ids or several of them."""
        if isinstance(self.prompt, str):
            return [RawPrompt(self.prompt)]
        tokens = [item for item in self.prompt if isinstance(item, int)]
        if len(tokens) == len(self.prompt):
            return [TokenPrompt(tokens)]
        texts = [RawPrompt(item) for item in self.prompt if isinstance(item, str)]
        lists = [TokenPrompt(item) for item in self.prompt if isinstance(item, list)]
        several = texts or lists
        if len(several) != len(self.prompt):
            raise BadRequest("prompt: strings, token ids and lists of token ids do not mix", param="prompt")
        if len(several) > MAX_PROMPTS:
            raise BadRequest(f"prompt: {len(several)} prompts; {MAX_PROMPTS} are the most", param="prompt")
        if len(several) * self.n_choices > MAX_CHOICES:
            raise BadRequest(f"n: {len(several)} prompts ask for more than {MAX_CHOICES} choices in all", param="n")
        return several


class Part(Struct):
    type: str
    text: str | None = None


class Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Meta(min_length=1)]
    name: str | None = None
    tool_calls: Annotated[object, unserved("[]")] = None
    function_call: Annotated[object, unserved()] = None

    def turn(self, path: str) -> ChatMessage:
        """`path` is where in the body it stands. Chat templates know `developer` by its older word, `system`."""
        common.refuse_unserved(self, f"{path}.")
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role, self.text(f"{path}.content"), self.name)

    def text(self, path: str) -> str:
        if isinstance(self.content, str):
            return self.content
        for index, part in enumerate(self.content):
            if part.type != "text" or part.text is None:
                at = f"{path}[{index}]"
                raise BadRequest(f"{at}: only parts of type text are served, and those have a text", param=at)
        return "\n".join(part.text or "" for part in self.content)


class ChatBody(Body, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    logprobs: Annotated[object, unserved("false")] = None
    top_logprobs: Annotated[object, unserved("0")] = None
    tools: Annotated[object, unserved("[]")] = None
    tool_choice: Annotated[object, unserved('"none"', '"auto"')] = None
    functions: Annotated[object, unserved("[]")] = None
    function_call: Annotated[object, unserved('"none"', '"auto"')] = None
    modalities: Annotated[object, unserved('["text"]')] = None
    audio: Annotated[object, unserved()] = None
    chat_template: Annotated[object, unserved()] = None
    chat_template_kwargs: Annotated[object, unserved("{}")] = None

    def prompt(self) -> ChatPrompt:
        return ChatPrompt([message.turn(f"messages[{index}]") for index, message in enumerate(self.messages)])


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class CachedFrom(Struct):
    """Where they were found: in a running request, in what an ended one left in the context, in RAM, on disk."""

    running: int
    idle: int
    ram: int
    disk: int


class CachedTokens(Struct):
    cached_tokens: int
    cached_from: CachedFrom


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TextChoice(Struct):
    """A choice of a text completion, whole or a chunk."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Reason | None = None


class Delta(Struct, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class ChatChunk(Struct):
    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: Reason | None = None


class Reply(Struct):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct):
    index: int
    message: Reply
    finish_reason: Reason
    logprobs: None = None


Choice = TextChoice | ChatChunk | ChatChoice


ChoiceT = TypeVar("ChoiceT")


class Envelope(Struct, Generic[ChoiceT], kw_only=True):
    """What is round the choices, in each chunk and in a whole answer."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChoiceT] = []
    usage: Usage | UnsetType | None = UNSET


class Shape(Struct, frozen=True):
    """In what the two kinds of answers differ."""

    id_prefix: str
    object: str
    chunk_object: str
    openings: Callable[[int], Iterable[Choice]]
    """The first chunk of each of so many choices, before there is text."""
    text: Callable[[int, str], Choice]
    ending: Callable[[int, Reason], Choice]
    whole: Callable[[int, str, Reason], Choice]


TEXT = Shape(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    openings=lambda n_choices: (),
    text=lambda index, text: TextChoice(index, text),
    ending=lambda index, reason: TextChoice(index, "", finish_reason=reason),
    whole=lambda index, text, reason: TextChoice(index, text, finish_reason=reason),
)
CHAT = Shape(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    openings=lambda n_choices: (ChatChunk(index, Delta(role="assistant", content="")) for index in range(n_choices)),
    text=lambda index, text: ChatChunk(index, Delta(content=text)),
    ending=lambda index, reason: ChatChunk(index, Delta(), finish_reason=reason),
    whole=lambda index, text, reason: ChatChoice(index, Reply(text), reason),
)


def envelope(id_prefix: str, kind: str, served: Served) -> Envelope[Choice]:
    return Envelope(
        id=id_prefix + secrets.token_hex(12),
        object=kind,
        created=int(time.time()),
        model=served.name,
        system_fingerprint=fingerprint(served),
    )


def fingerprint(served: Served) -> str:
    """The worker's; where it knows none: another one, when the model or this program is another."""
    if served.info and served.info.fingerprint:
        return served.info.fingerprint
    weights = served.info and (served.info.description, served.info.model_bytes)
    return "fp_" + hashlib.sha256(encode((__version__, served.name, weights))).hexdigest()[:10]


def usage(counts: common.Counts) -> Usage:
    n_total = counts.n_prompt + counts.n_output
    return Usage(
        counts.n_prompt, counts.n_output, n_total, CachedTokens(counts.cached.n, CachedFrom(*astuple(counts.cached)))
    )


class ModelMeta(Struct):
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    n_params: int
    size: int


class ModelStatus(Struct):
    value: State
    reason: str


class ModelReproducible(Struct):
    """Whether requests may ask for `reproducible`."""

    value: Reproducible
    reason: str


class Model(Struct):
    id: str
    created: int
    meta: ModelMeta | None
    status: ModelStatus
    reproducible: ModelReproducible | None
    """None while no worker is ready."""
    object: str = "model"
    owned_by: str = "plait"


class ModelList(Struct):
    data: list[Model]
    object: str = "list"


def model(served: Served) -> Model:
    info = served.info
    meta = ModelMeta(info.n_vocab, info.n_ctx, info.n_ctx_train, info.n_params, info.model_bytes) if info else None
    found = ModelReproducible(info.verdict.reproducible, info.verdict.reason) if info else None
    return Model(served.name, served.created, meta, ModelStatus(served.state, served.reason), found)


class Error(Struct):
    message: str
    type: str
    param: str | None
    code: str


class Refusal(Struct):
    error: Error


def refusal(error: PlaitError) -> bytes:
    return encode(Refusal(Error(error.message, _type(error.status), error.param, error.code)))


def _type(status: int) -> str:
    """OpenAI's own servers tell only these three apart by type; the rest is the code's to say."""
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
