"""A body as an axum program reads it: serde_json's strictness, and its words for the first thing that is wrong.

For dialects that stand in for such a program. What a body must hold is declared as a msgspec Struct of `str`, `I32` and
`U32`. Reads from left to right and stops at the first fault, as serde does, so that message, line and column are the
same. What goes over many bytes runs in C: one client's body must not hold up the others. Pure, but for `read`.
"""

import json
import math
import re
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request

from plait.errors import BadRequest
from plait.web import guard
from plait.web.scan import scan

T = TypeVar("T", bound=Struct)


class Integer(NamedTuple):
    """One of Rust's integer types."""

    name: str
    values: range


I32 = Annotated[int, Integer("i32", range(-(2**31), 2**31))]
U32 = Annotated[int, Integer("u32", range(2**32))]

MOST_FIELDS = 256
"""An object with more is an attack: its keys are read one by one."""

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
"""Up to its closing quote, or to where it goes wrong."""
_NUMBER_LIKE = re.compile(rb"-?+(?:0|[1-9][0-9]*+)?+(?:\.[0-9]*+)?+(?:[eE][+-]?+[0-9]*+)?+")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(rb"(?!-0)-?[0-9]{1,20}")
_IDENTS = {b"n": (b"null", None), b"t": (b"true", True), b"f": (b"false", False)}


class Nested(Enum):
    """A value in brackets, which is not gone into."""

    SEQUENCE = "sequence"
    MAP = "map"


Value = str | int | float | bool | Nested | None

_BRACKETS = {b"[": Nested.SEQUENCE, b"{": Nested.MAP}


class Rejection(BadRequest):
    """A body that is no JSON. The message is all that axum says."""


class Unfit(Rejection):
    """A body that is JSON, but not what its type says."""

    status = 422


async def read(http: Request, kind: type[T]) -> T:
    """The request's body as a `kind`."""
    return await guard.aside(decode, await guard.body(http), kind)


def decode(body: bytes, kind: type[T]) -> T:
    """The object that the body begins with; what follows is ignored, and so are fields that `kind` does not have.

    Raises `Rejection` for what is no JSON, `Unfit` for what is no `kind`.
    """
    scan(body, may_repeat=True)
    return msgspec.convert(_Reader(body).fields(_kinds(kind)), kind)


@cache
def _kinds(kind: type[Struct]) -> Mapping[str, Integer | None]:
    """The fields of a body, in order, and the type of those that are not strings."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: None if hint is str else hint.__metadata__[0] for name, hint in hints.items()}


class _Reader:
    """One body, and how far it has been read."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.latin = body.decode("latin-1")
        """The body as a text in which a place is a place in the body."""
        self.at = 0
        self.path = ""
        """The field whose value is being read, as it stands before a message."""

    def fields(self, wanted: Mapping[str, Integer | None]) -> dict[str, str | int]:
        """The wanted fields of the object that comes next, all of them."""
        said: dict[str, str | int] = {}
        for key in self.keys():
            if self.peek("an object") != b":" and key not in said:
                raise self.malformed("expected `:`")
            if key in said:
                raise self.unfit(f"duplicate field `{key}`")
            self.at += 1
            self.path = f"{key}: "
            if key in wanted:
                said[key] = self.value(wanted[key])
            else:
                self.skip()
            self.path = ""
        for name in wanted:
            if name not in said:
                raise self.unfit(f"missing field `{name}`")
        return said

    def keys(self) -> Iterator[str]:
        """The keys of the object that comes next. Whoever takes one goes on to read its value."""
        if self.peek() != b"{":
            raise self.unfit(f"invalid type: {_words(self.next())}, expected an object")
        self.at += 1
        n_keys = 0
        while (byte := self.peek("an object")) != b"}":
            if n_keys:
                if byte != b",":
                    raise self.malformed("expected `,` or `}`")
                self.at += 1
                byte = self.peek()
                if byte == b"}":
                    raise self.malformed("trailing comma")
            if byte != b'"':
                raise self.malformed("key must be a string")
            n_keys += 1
            if n_keys > MOST_FIELDS:
                raise self.malformed(f"more than {MOST_FIELDS} fields")
            yield self.string()
        self.at += 1

    def value(self, integer: Integer | None) -> str | int:
        """The next value: an integer of this type, or a string."""
        found = self.next()
        if integer is None and isinstance(found, str):
            return found
        expected = integer.name if integer else "a string"
        if integer is None or not isinstance(found, int) or isinstance(found, bool):
            raise self.unfit(f"invalid type: {_words(found)}, expected {expected}")
        if found not in integer.values:
            raise self.unfit(f"invalid value: {_words(found)}, expected {expected}")
        return found

    def skip(self) -> None:
        """Pass over the next value, whatever it is."""
        self.peek()
        try:
            _, self.at = _ANYTHING.raw_decode(self.latin, self.at)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                self.at = error.pos
            self.peek()
            raise self.malformed("expected value") from None

    def next(self) -> Value:
        """The next value."""
        byte = self.peek()
        if byte == b'"':
            return self.string()
        if byte in b"-0123456789":
            return self.number()
        if byte in _IDENTS:
            return self.ident(*_IDENTS[byte])
        if byte in _BRACKETS:
            return _BRACKETS[byte]
        raise self.malformed("expected value")

    def string(self) -> str:
        found = _STRING.match(self.body, self.at)
        assert found, "whoever calls this has seen the quote"
        begin, end = found.span()
        match self.body[end : end + 2]:
            case b"" | b"\\":
                end, problem = len(self.body), "EOF while parsing a string"
            case b"\\u":
                end, problem = end + 5, "invalid escape"
            case following if following[:1] == b"\\":
                end, problem = end + 1, "invalid escape"
            case following if following[:1] != b'"':
                problem = "control character (\\u0000-\\u001F) found while parsing a string"
            case _:
                self.at = end + 1
                return self.unescaped(self.body[begin : self.at])
        self.at = end
        raise self.malformed(problem)

    def unescaped(self, quoted: bytes) -> str:
        try:
            return msgspec.json.decode(quoted, type=str)
        except UnicodeDecodeError:
            raise self.error("invalid unicode code point") from None
        except msgspec.DecodeError:
            raise self.error("lone leading surrogate in hex escape") from None

    def number(self) -> int | float:
        found = _NUMBER_LIKE.match(self.body, self.at)
        assert found, "it matches everywhere"
        digits, self.at = found[0], found.end()
        if not _NUMBER.fullmatch(digits) or self.body[self.at : self.at + 1].isdigit():
            raise self.malformed("invalid number" if self.at < len(self.body) else "EOF while parsing a value")
        # What no 64 bits hold is a floating point number to serde, and so is -0.
        if _WHOLE.fullmatch(digits) and -(2**63) <= int(digits) < 2**64:
            return int(digits)
        if math.isinf(float(digits)):
            raise self.error("number out of range")
        return float(digits)

    def ident(self, name: bytes, value: bool | None) -> bool | None:
        for expected in name:
            if self.at == len(self.body):
                raise self.malformed("EOF while parsing a value")
            self.at += 1
            if self.body[self.at - 1] != expected:
                raise self.error("expected ident")
        return value

    def peek(self, what: str = "a value") -> bytes:
        """The next byte that is not space; `what` is what ends too soon if there is none."""
        space = _SPACE.match(self.body, self.at)
        assert space, "it matches everywhere"
        self.at = space.end()
        if self.at == len(self.body):
            raise self.malformed(f"EOF while parsing {what}")
        return self.body[self.at : self.at + 1]

    def malformed(self, problem: str) -> Rejection:
        """The next byte is wrong, or absent."""
        self.at = min(self.at + 1, len(self.body))
        return self.error(problem)

    def error(self, problem: str) -> Rejection:
        """What was read last is no JSON."""
        return Rejection(f"Failed to parse the request body as JSON: {self.placed(problem)}")

    def unfit(self, problem: str) -> Unfit:
        """What was read last is not what was wanted."""
        return Unfit(f"Failed to deserialize the JSON body into the target type: {self.placed(problem)}")

    def placed(self, problem: str) -> str:
        """The problem with its field before it and its place behind it: how many bytes of this line were read."""
        line = self.body.rfind(b"\n", 0, self.at) + 1
        n_lines = 1 + self.body.count(b"\n", 0, line)
        return f"{self.path}{problem} at line {n_lines} column {self.at - line}"


def _words(value: Value) -> str:
    """What a value is, as serde says it."""
    match value:
        case None:
            return "null"
        case Nested():
            return value.value
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            digits = f"{Decimal(repr(value)):f}"
            return f"floating point `{digits if '.' in digits else digits + '.0'}`"
        case str():
            return f"string {msgspec.json.encode(value).decode()}"


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is a number to Python only")


_ANYTHING = json.JSONDecoder(parse_constant=_refuse)
"""Faster than reading value by value; what is wrong in an unknown field, it says less exactly."""
