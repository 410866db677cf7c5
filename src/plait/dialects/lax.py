"""A body as a FastAPI program reads it: pydantic v2's lax conversions, and its words for what cannot be converted.

For dialects that stand in for such a program. What a body may hold is declared as a msgspec Struct, as in any dialect:
its types, limits and defaults mean what pydantic makes of them. Pure, but for reading the request.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.inspect import BoolType, FloatType, IntType, NoneType, StrType, StructType, Type, UnionType, type_info
from starlette.requests import Request

from plait.errors import BadRequest, UnsupportedMedia
from plait.web import guard
from plait.web.scan import scan

T = TypeVar("T", bound=Struct)

WORDS = {
    "missing": "Field required",
    "model_attributes_type": "Input should be a valid dictionary or object to extract fields from",
    "json_invalid": "JSON decode error",
    "string_type": "Input should be a valid string",
    "int_type": "Input should be a valid integer",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_parsing_size": "Unable to parse input string as an integer, exceeded maximum size",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "float_type": "Input should be a valid number",
    "float_parsing": "Input should be a valid number, unable to parse string as a number",
    "bool_type": "Input should be a valid boolean",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than_equal": "Input should be less than or equal to {le}",
    "value_error": "Value error, {error}",
}
"""pydantic's, and FastAPI's own for JSON that is none; what stands in braces is in the problem's `ctx`, too."""

TRUE = {"1", "on", "t", "true", "y", "yes"}
FALSE = {"0", "off", "f", "false", "n", "no"}
MOST_DIGITS = 4300
"""Python's own limit for what it makes an integer of."""
_WHOLE = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*(?:\.0+)?")

Context = dict[str, int | float | str]


class Problem(Struct, frozen=True):
    """One thing that is wrong with a body, as FastAPI's clients know it."""

    type: str
    loc: list[str | int]
    msg: str
    input: object
    ctx: Context | UnsetType = UNSET


class Invalid(BadRequest):
    """A body that is not what its type says; `problems` are all that is wrong with it."""

    status = 422

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.msg for problem in problems))
        self.problems = problems


class Unfit(Exception):
    """A value that its field cannot take."""

    def __init__(self, kind: str, **context: int | float | str) -> None:
        super().__init__(kind)
        self.kind, self.context = kind, context

    def at(self, value: object, *place: str | int) -> Problem:
        """The problem that it is, at this place in the body."""
        # 100.0 is said as 100, though it stays what it is in `ctx`.
        shown = {name: f"{each:g}" if isinstance(each, float) else each for name, each in self.context.items()}
        words = WORDS[self.kind].format(**shown)
        return Problem(self.kind, ["body", *place], words, value, self.context or UNSET)


async def read(http: Request, kind: type[T]) -> T:
    """The request's body as a `kind`. Raises `Invalid` with everything that is wrong with it."""
    try:
        body = await guard.body(http)
    except UnsupportedMedia as error:
        raise Invalid(Unfit("model_attributes_type", error=error.message).at(None)) from None
    if not body:
        raise Invalid(Unfit("missing").at(None))
    return await guard.aside(decode, body, kind)


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as a `kind`. Raises `Invalid` with everything that is wrong with it."""
    return convert(parse(body), kind)


def parse(body: bytes) -> object:
    """JSON as Python values. What is no text at all is a plain 400 to FastAPI."""
    scan(body, may_repeat=True)
    try:
        body.decode()
        return msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise BadRequest("There was an error parsing the body") from None
    except msgspec.MsgspecError as error:
        raise Invalid(_malformed(body, str(error))) from None


def _malformed(body: bytes, problem: str) -> Problem:
    """What Python's own parser says, and where; it takes some things that we do not, such as NaN."""
    place = 0
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        place, problem = error.pos, error.msg
    except ValueError as error:
        problem = str(error)
    return msgspec.structs.replace(Unfit("json_invalid", error=problem).at({}), loc=["body", place])


def convert(value: object, kind: type[T]) -> T:
    """A JSON object as a `kind`; fields that it does not have are ignored."""
    if not isinstance(value, Mapping):
        raise Invalid(Unfit("model_attributes_type").at(value))
    shape = type_info(kind)
    assert isinstance(shape, StructType)
    said: dict[str, object] = {}
    problems: list[Problem] = []
    for field in shape.fields:
        if field.name in value:
            try:
                said[field.name] = take(value[field.name], field.type)
            except Unfit as unfit:
                problems.append(unfit.at(value[field.name], field.name))
        elif field.required:
            problems.append(Unfit("missing").at(value, field.name))
    if problems:
        raise Invalid(*problems)
    return kind(**said)


def take(value: object, kind: Type) -> object:
    """The value as its field's type."""
    match kind:
        case UnionType(types=types) if value is None and NoneType() in types:
            return None
        case UnionType(types=(wanted, *_)):
            return take(value, wanted)
        case StrType():
            return text(value)
        case BoolType():
            return switch(value)
        case IntType():
            return within(whole(value), kind)
        case FloatType():
            return within(number(value), kind)
    raise TypeError(f"a field of type {kind} is read nowhere yet")


def text(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit("string_type")
    return value


def switch(value: object) -> bool:
    match value:
        case int() | float() if value in (0, 1):
            return bool(value)
        case str() if value.lower() in TRUE | FALSE:
            return value.lower() in TRUE
        case str():
            raise Unfit("bool_parsing")
        case int() | float() if value % 1 == 0:
            raise Unfit("bool_parsing")
    raise Unfit("bool_type")


def whole(value: object) -> int:
    match value:
        case int():
            return int(value)
        case float() if value.is_integer():
            return int(value)
        case float():
            raise Unfit("int_from_float")
        case str() if len(value) > MOST_DIGITS:
            raise Unfit("int_parsing_size")
        case str() if _WHOLE.fullmatch(value.strip()):
            return int(value.strip().partition(".")[0])
        case str():
            raise Unfit("int_parsing")
    raise Unfit("int_type")


def number(value: object) -> float:
    match value:
        case int() if abs(value) > sys.float_info.max:
            raise Unfit("float_type")
        case int() | float():
            return float(value)
        case str() if value.isascii():
            try:
                return float(value)
            except ValueError:
                raise Unfit("float_parsing") from None
        case str():
            raise Unfit("float_parsing")
    raise Unfit("float_type")


def within(n: float, limits: IntType | FloatType) -> float:
    """The number, if it keeps its field's limits. NaN keeps none."""
    if limits.le is not None and not n <= limits.le:
        raise Unfit("less_than_equal", le=type(n)(limits.le))
    if limits.ge is not None and not n >= limits.ge:
        raise Unfit("greater_than_equal", ge=type(n)(limits.ge))
    return n
