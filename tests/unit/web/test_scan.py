"""Towers and keys that stand twice, found without a parser: exactly those that a parser would find."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import BadRequest
from plait.web.scan import MAX_DEPTH, MAX_SIGNS, scan

LETTERS = st.text(st.characters(codec="utf-8"), max_size=5) | st.text(alphabet='"\\{}[],:ab', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | LETTERS,
    lambda below: st.lists(below) | st.dictionaries(LETTERS, below),
)
WINDOWS = st.sampled_from([2, 3, 7, 65_536])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON whose objects may have a key twice, spelled in several ways, with spaces in several places."""

    def spelled(value: str) -> str:
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    def space() -> str:
        return draw(st.sampled_from(["", " ", "\n\t"]))

    def document(depth: int) -> str:
        match draw(st.integers(0, 3 if depth < 3 else 1)):
            case 0:
                return json.dumps(draw(st.integers() | st.booleans()))
            case 1:
                return spelled(draw(LETTERS))
            case 2:
                return f"[{','.join(document(depth + 1) for _ in range(draw(st.integers(0, 3))))}{space()}]"
        members = [
            f"{space()}{spelled(draw(LETTERS))}{space()}:{space()}{document(depth + 1)}"
            for _ in range(draw(st.integers(0, 3)))
        ]
        return "{" + ",".join(members) + space() + "}"

    return document(0)


def has_a_key_twice(document: str) -> bool:
    found: list[bool] = []
    json.loads(document, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) < len(pairs)))
    return any(found)


@given(documents(), WINDOWS)
def test_a_key_that_stands_twice_is_found_and_no_other(document: str, window: int) -> None:
    scan(document.encode(), may_repeat=True, window=window)
    if has_a_key_twice(document):
        with pytest.raises(BadRequest, match="twice in one object"):
            scan(document.encode(), window=window)
    else:
        scan(document.encode(), window=window)


@given(VALUES, st.integers(0, 130), WINDOWS)
def test_depth_is_counted_outside_of_strings_only(value: object, n_around: int, window: int) -> None:
    body = b"[" * n_around + msgspec.json.encode(value) + b"]" * n_around
    if n_around + depth(value) <= MAX_DEPTH:
        scan(body, window=window)
    else:
        with pytest.raises(BadRequest, match="nested"):
            scan(body, window=window)


def depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
    return 0


@pytest.mark.parametrize("sign", [b"[],", b'"",', b'{"":0},', b"[" * 63 + b"]" * 63 + b","])
def test_what_has_more_signs_than_any_request_is_not_read_to_its_end(sign: bytes) -> None:
    with pytest.raises(BadRequest, match="more than 262,144 brackets and strings"):
        scan(b"[" + sign * MAX_SIGNS)
    scan(b"[" + b"0," * MAX_SIGNS + b"0]")


@given(st.binary() | st.text(alphabet='{}[]",:\\au0 ').map(str.encode), WINDOWS)
def test_what_is_no_json_is_passed_over_or_refused(body: bytes, window: int) -> None:
    with suppress(BadRequest):
        scan(body, window=window)
