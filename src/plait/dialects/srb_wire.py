"""The shapes of llama-srb-api's wire, in and out, as Python's `json` and Flask write them. Pure: values in, values out.

Clients that take its lines apart by hand rely on their bytes: spaces behind commas and colons, and escapes for all that
is not ASCII.
"""

import html
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from plait.dialects import common
from plait.fleet.base import Served, State
from plait.protocol import Done, RawPrompt, Reason, Request, Sampling
from plait.web import sse

SAMPLING = Sampling(temperature=1.0, top_k=40, top_p=0.9, min_p=0.0)
STOP = (".", "\n")
"""Ends a completion of the first version."""
N_FREE = 3
"""Tokens of a completion in which nothing is a stop string."""
MAX_TOKENS = 64
LAST_STEP = 64
"""The first version counts steps from zero, and includes this one: it has one token more."""
STATES: dict[State, str] = {
    "loading": "LOADING",
    "ready": "READY",
    "restarting": "LOADING",
    "failed": "DEAD",
    "unloading": "DEAD",
}


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

AtLeastOne = Annotated[int, Meta(ge=1, le=common.INT32_MAX)]


class Body(common.SamplingFields, kw_only=True):
    """`POST /v1/completions`. Fields that are not named here are ignored, as they were."""

    prompt: str = ""
    n: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    min_tokens: common.Count | None = None
    stop: str | list[str] | None = None
    stream: bool | UnsetType | None = UNSET

    @property
    def is_flat(self) -> bool:
        """Whether the answer has the events of the first version, which knew nothing of `stream`."""
        return self.stream is UNSET

    def request(self, usual_n: int, usual_stop: tuple[str, ...] | None) -> Request:
        """In the first version n was the server's to say; in the later ones it is 1 unless the request says more."""
        if usual_stop is None:
            usual_stop = STOP if self.is_flat else ()
        return Request(
            prompt=RawPrompt(self.prompt),
            n=self.n or (usual_n if self.is_flat else 1),
            max_tokens=self.max_tokens or (LAST_STEP + 1 if self.is_flat else MAX_TOKENS),
            stop=usual_stop if self.stop is None else common.stops(self.stop),
            keep_stop=self.is_flat,
            stop_after=N_FREE if self.min_tokens is None else self.min_tokens,
            sampling=self.sampling(SAMPLING),
        )


# ── out: streams ─────────────────────────────────────────────────────────────────────────────────────────────────


class Shape(Protocol):
    """How a stream is told."""

    def opening(self) -> bytes:
        """Before the first word."""
        ...

    def word(self, index: int, text: str, end: Done | None) -> bytes:
        """What a choice says, and its end if that was its last."""
        ...

    def closing(self) -> bytes:
        """After the last choice's end."""
        ...

    def pause(self) -> bytes:
        """While nothing is said, so that the connection is not cut."""
        ...

    def failure(self, message: str) -> bytes:
        """Instead of all that was to follow."""
        ...


class Start(Struct, tag_field="event", tag="start"):
    count: int


class Stream(Struct, tag_field="event", tag="stream"):
    index: int
    text: str


class Stop(Struct, tag_field="event", tag="stop"):
    index: int
    length: int
    """The last token's step, counted from zero."""
    stop: Literal[0, 1]
    """1: ended by a stop string; 0: by the model, or by the limit."""


class Finish(Struct, tag_field="event", tag="done"):
    count: int


class Failure(Struct, tag_field="event", tag="error"):
    error: str


@dataclass(frozen=True, slots=True)
class Flat:
    """The first version: lines of flat events, without empty lines between them."""

    n: int

    def opening(self) -> bytes:
        return self._line(Start(self.n))

    def word(self, index: int, text: str, end: Done | None) -> bytes:
        line = self._line(Stream(index, text))
        if end is None:
            return line
        return line + self._line(Stop(index, end.n_output - 1, 1 if end.stopped_by else 0))

    def closing(self) -> bytes:
        return self._line(Finish(self.n))

    def pause(self) -> bytes:
        return b""  # Who reads such lines knows no comments.

    def failure(self, message: str) -> bytes:
        return self._line(Failure(message))

    def _line(self, event: Struct) -> bytes:
        return b"data: " + dumps(event) + b"\n"


class Words(Struct):
    index: int
    text: str
    finish_reason: Reason | None


class StopHit(Struct):
    index: int
    finish_reason: Literal["stop"]
    stop_reason: str
    text: None = None


class Chunk(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[Words | StopHit]


@dataclass(frozen=True, slots=True)
class Later:
    """The later versions: OpenAI-like chunks as server-sent events."""

    served: Served
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")

    def opening(self) -> bytes:
        return b""

    def word(self, index: int, text: str, end: Done | None) -> bytes:
        return b"".join(map(self._event, self._choices(index, text, end)))

    def closing(self) -> bytes:
        return sse.DONE

    def pause(self) -> bytes:
        return sse.RESUMING

    def failure(self, message: str) -> bytes:
        return sse.event(dumps(Note(message)))

    def _choices(self, index: int, text: str, end: Done | None) -> Iterator[Words | StopHit]:
        if end and not end.stopped_by:
            yield Words(index, text, end.reason)
            return
        if text:
            yield Words(index, text, None)
        if end:
            yield StopHit(index, "stop", end.stopped_by)

    def _event(self, choice: Words | StopHit) -> bytes:
        return sse.event(dumps(Chunk(self.id, "text_completion", int(time.time()), model_name(self.served), [choice])))


# ── out: whole values ────────────────────────────────────────────────────────────────────────────────────────────


class Choice(Struct):
    index: int
    text: str
    finish_reason: Reason
    logprobs: None = None


class Whole(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]


class Engine(Struct):
    engine_state: str
    id: str


class EngineList(Struct):
    data: list[Engine]


class Note(Struct):
    """All that the program says besides, good or bad."""

    error: str


def whole(served: Served, texts: list[str], reasons: list[Reason]) -> Whole:
    choices = [Choice(index, text, reason) for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))]
    return Whole(f"cmpl-{uuid.uuid4()}", "text_completion", int(time.time()), model_name(served), choices)


def model_name(served: Served) -> str:
    return Path(served.path).name


def dumps(value: Struct) -> bytes:
    """JSON as Python writes it by itself."""
    return json.dumps(msgspec.to_builtins(value)).encode()


def jsonify(value: Struct) -> bytes:
    """JSON as Flask answers with it: sorted, dense, and a line."""
    return json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def page(status: HTTPStatus, message: str) -> bytes:
    """The page that Flask answers an error with."""
    title = status.phrase
    return (
        "<!doctype html>\n<html lang=en>\n"
        f"<title>{status.value} {title}</title>\n<h1>{title}</h1>\n<p>{html.escape(message)}</p>\n"
    ).encode()
