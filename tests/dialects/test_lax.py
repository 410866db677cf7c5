"""A body is taken and refused as pydantic takes and refuses it: pydantic itself is the judge."""

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from pydantic import BaseModel, Field, ValidationError

from plait.dialects import lax
from plait.dialects.lax import Invalid


class Ours(Struct):
    text: str
    count: Annotated[int, Meta(ge=1, le=1000)] = 7
    share: Annotated[float, Meta(ge=0, le=100)] = 0.5
    switch: bool = True
    maybe: Annotated[int, Meta(ge=-5)] | None = 3


class Theirs(BaseModel):
    text: str
    count: int = Field(7, ge=1, le=1000)
    share: float = Field(0.5, ge=0, le=100)
    switch: bool = True
    maybe: Annotated[int, Field(ge=-5)] | None = 3


TEXTS = ["", " ", "0x1", "--1", "1 0", "nan", "inf", "-inf", "Infinity", "tRuE", "off", "Y", "no", "\u0661", "9" * 4301]
TEXTS += ["1", "1.0", "1.", ".5", " 2 ", "+1", "-0", "1_0", "_1", "1__0", "1_0.00", "1.5", "1e2", "\n1\t", "1.0.0", "2"]
NUMBERS = st.integers(-(10**18), 10**18) | st.floats(-1e15, 1e15) | st.integers(-9, 9) | st.sampled_from([0.0, 1.0])
VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | NUMBERS | st.sampled_from(TEXTS) | st.text(max_size=4) | st.just([]) | st.just({})
)
BODIES = st.dictionaries(st.sampled_from([*Ours.__struct_fields__, "other"]), VALUES)


def ours(body: dict[str, Any]) -> object:
    try:
        return msgspec.to_builtins(lax.convert(body, Ours))
    except Invalid as error:
        return msgspec.json.decode(msgspec.json.encode(error.problems))


def theirs(body: dict[str, Any]) -> object:
    try:
        return Theirs.model_validate(body).model_dump()
    except ValidationError as error:
        return [problem | {"loc": ["body", *problem["loc"]]} for problem in error.errors(include_url=False)]


@given(BODIES)
@example({"text": "a", "count": "10", "share": True, "switch": 1.0, "maybe": None, "other": 1})
@example({"text": None, "count": 1.5, "share": "x", "switch": "maybe", "maybe": -6})
def test_what_is_taken_and_what_is_refused_is_what_pydantic_does(body: dict[str, Any]) -> None:
    assert ours(body) == theirs(body)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("field", Ours.__struct_fields__)
def test_a_text_means_the_same(field: str, text: str) -> None:
    assert ours({"text": "a", field: text}) == theirs({"text": "a", field: text})


@given(st.integers(10**300, 10**400))
def test_a_number_may_be_as_large_as_json_lets_it(n: int) -> None:
    assert ours({"text": "a", "count": n, "share": n}) == theirs({"text": "a", "count": n, "share": n})
