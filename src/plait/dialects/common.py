"""What dialects share: llama.cpp's sampling fields, refusing what is not served, weaving answers, folding a stream.

Nothing here lives longer than a request, and nothing here knows any wire's shapes: those are each dialect's own.
"""

import asyncio
import typing
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, structs

from plait.errors import BadRequest, ModelNotFound
from plait.fleet.base import Fleet, Served
from plait.protocol import (
    MAX_LOGIT_BIASES,
    MAX_PRIORITY,
    MAX_STOP_BYTES,
    MAX_STOPS,
    AdapterScale,
    Answer,
    Cached,
    Done,
    Reason,
    Sampling,
    Started,
    Text,
)

INT32_MAX = 2**31 - 1
"""libllama's own integers are this wide."""

N_SEEDS = 2**32 - 1
"""libllama's seeds are 0 … 2**32 - 2; the one above means "draw one" to it."""


# ── what a request says ──────────────────────────────────────────────────────────────────────────────────────────

Count = Annotated[int, Meta(ge=0, le=INT32_MAX)]
CountOrAll = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
Share = Annotated[float, Meta(ge=0, le=1)]
Factor = Annotated[float, Meta(ge=0, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Breaker = Annotated[str, Meta(min_length=1, max_length=40)]
Scale = Annotated[float, Meta(ge=-100, le=100)]
Priority = Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]


LLAMA_CPP = Sampling()
"""Its defaults."""


class SamplingFields(Struct, kw_only=True):
    """`Sampling` as a client may say it: the same names, and limits. What is absent or null keeps its default there."""

    seed: int | None = None
    """Any integer; -1 asks for a random one, as in llama.cpp."""
    temperature: Factor | None = None
    dynatemp_range: Factor | None = None
    dynatemp_exponent: Factor | None = None
    top_k: CountOrAll | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1, le=100)] | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    min_keep: Count | None = None
    repeat_last_n: CountOrAll | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    dry_multiplier: Factor | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: CountOrAll | None = None
    dry_sequence_breakers: Annotated[tuple[Breaker, ...], Meta(max_length=16)] | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Factor | None = None
    mirostat_eta: Factor | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=MAX_LOGIT_BIASES)] | None = None
    ignore_eos: bool | None = None

    def sampling(self, default: Sampling = LLAMA_CPP) -> Sampling:
        """What was said, with the defaults for the rest."""
        fields = {name: getattr(self, name) for name in Sampling.__struct_fields__}
        said = {name: value for name, value in fields.items() if value is not None}
        if self.seed is not None:
            said["seed"] = None if self.seed == -1 else self.seed % N_SEEDS
        return structs.replace(default, **said)


class Adapter(Struct):
    """An element of llama-server's `lora`. What else its `GET /lora-adapters` says of one may stand there, too."""

    id: Count
    scale: Scale


def adapter_scales(said: Sequence[Adapter] | None) -> tuple[AdapterScale, ...] | None:
    """What a `lora` field asks for. Whether there are such adapters, the worker knows."""
    if said is None:
        return None
    if len({adapter.id for adapter in said}) < len(said):
        raise BadRequest("lora: an adapter is there twice", param="lora")
    return tuple(AdapterScale(adapter.id, adapter.scale) for adapter in said)


def stops(said: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings of a field that may hold one or several."""
    strings = (said,) if isinstance(said, str) else tuple(said or ())
    if len(strings) > MAX_STOPS:
        raise BadRequest(f"stop: {len(strings)} strings; {MAX_STOPS} are the most", param="stop")
    for string in strings:
        if not 1 <= len(string.encode()) <= MAX_STOP_BYTES:
            raise BadRequest(f"stop: a stop string has 1 to {MAX_STOP_BYTES} bytes", param="stop")
    return strings


def unserved(*harmless: str) -> Meta:
    """Marks a field whose wish is not served yet: it may be null, or one of these JSON texts, which ask for nothing."""
    values = [None, *map(msgspec.json.decode, harmless)]
    return Meta(extra={"harmless": harmless}, extra_json_schema={"enum": values})


def refuse_unserved(said: Struct, path: str = "") -> None:
    """Raise `BadRequest` for a field that asks for what is not served, rather than ignore what it wants."""
    for name, harmless in _unserved(type(said)).items():
        value = getattr(said, name)
        # As JSON, because Python holds false, which asks for nothing, and 0, which may ask for something, to be equal.
        if value is not None and msgspec.json.encode(value).decode() not in harmless:
            raise BadRequest(f"{path}{name}: what this asks for is not served yet", param=path + name)


@cache
def _unserved(kind: type[Struct]) -> dict[str, tuple[str, ...]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    metas = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: found[0].extra["harmless"] for name, found in metas.items() if found and found[0].extra}


def find(fleet: Fleet, name: str | None) -> Served:
    """The served model of that name; without one, the default."""
    models = fleet.models()
    for served in models:
        if name in (None, served.name):
            return served
    names = ", ".join(served.name for served in models)
    raise ModelNotFound(f"there is no such model; served are: {names or 'none'}", param="model")


# ── what an answer says ──────────────────────────────────────────────────────────────────────────────────────────


async def weave(answers: Sequence[AsyncGenerator[Answer, None]], n: int) -> AsyncGenerator[list[Answer], None]:
    """Several prompts' answers as one stream, in batches of what came at once.

    Choice `i` of prompt `k` is choice `k * n + i` of the whole. The first error ends all; so does leaving.
    """
    said: list[Answer] = []
    news = asyncio.Event()
    listeners = {asyncio.create_task(_listen(answer, k * n, said, news)) for k, answer in enumerate(answers)}
    for listener in listeners:
        listener.add_done_callback(lambda _: news.set())
    try:
        while listeners:
            await news.wait()
            news.clear()
            done = {listener for listener in listeners if listener.done()}
            if said:
                batch = said.copy()
                said.clear()
                yield batch
            for listener in done:
                listener.result()
            listeners -= done
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)


async def _listen(
    answer: AsyncGenerator[Answer, None], first_choice: int, said: list[Answer], news: asyncio.Event
) -> None:
    async with aclosing(answer):
        async for event in answer:
            if first_choice and isinstance(event, Text | Done):
                event = structs.replace(event, choice=first_choice + event.choice)
            said.append(event)
            news.set()


@dataclass(slots=True, eq=False)
class Counts:
    """What one HTTP answer has come to, in tokens. A prompt counts once, however many choices it has."""

    n_prompt: int = 0
    cached: Cached = field(default_factory=Cached)
    n_output: int = 0
    n_done: int = 0
    """Choices that have ended."""

    def count(self, event: Answer) -> None:
        match event:
            case Started():
                self.n_prompt += len(event.prompt_tokens)
                self.cached += event.cached
            case Done():
                self.n_output += event.n_output
                self.n_done += 1


class Whole(Struct, frozen=True):
    """All that an answer said; texts and reasons by choice."""

    texts: list[str]
    reasons: list[Reason]
    counts: Counts


async def fold(batches: AsyncGenerator[list[Answer], None], n_choices: int) -> Whole:
    """The whole that a stream adds up to."""
    texts: list[list[str]] = [[] for _ in range(n_choices)]
    reasons: dict[int, Reason] = {}
    counts = Counts()
    async with aclosing(batches):
        async for batch in batches:
            for event in batch:
                counts.count(event)
                if isinstance(event, Text | Done):
                    texts[event.choice].append(event.text)
                if isinstance(event, Done):
                    reasons[event.choice] = event.reason
    return Whole(["".join(text) for text in texts], [reasons[choice] for choice in range(n_choices)], counts)
