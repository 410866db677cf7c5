"""A body is read, and refused, as serde_json reads it: what is expected here is what serde_json said."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from plait.dialects import axum
from plait.dialects.axum import I32, U32, Rejection, Unfit
from plait.errors import BadRequest


class Body(Struct):
    text: str
    signed: I32
    unsigned: U32


GOOD = {"text": "a\n\N{LATIN SMALL LETTER E WITH ACUTE}\U0001f600", "signed": -(2**31), "unsigned": 2**32 - 1}
SECONDS = 10.0
"""Of the processor: what is quadratic would take minutes."""
SYNTAX = "Failed to parse the request body as JSON: "
DATA = "Failed to deserialize the JSON body into the target type: "


def problem(body: bytes) -> str:
    """What is wrong with a body, without the words that all problems of a kind begin with."""
    with pytest.raises(Rejection) as caught:
        axum.decode(body, Body)
    begin = DATA if caught.type is Unfit else SYNTAX
    assert caught.value.message.startswith(begin)
    assert caught.value.status == (422 if begin is DATA else 400)
    return caught.value.message.removeprefix(begin)


def test_a_body_is_what_its_type_says() -> None:
    assert axum.decode(msgspec.json.encode(GOOD), Body) == msgspec.convert(GOOD, Body)


def test_unknown_fields_and_what_follows_are_ignored() -> None:
    body = b' {"x": [{"text": 1, "y": "]\\""}, 1e400, -0.5], "text":"\\u00e9","signed" : 0,\n"unsigned":7 } {"text": '
    assert axum.decode(body, Body) == Body("\N{LATIN SMALL LETTER E WITH ACUTE}", 0, 7)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", "missing field `text` at line 1 column 2"),
        (b'{"text": "a"}', "missing field `signed` at line 1 column 13"),
        (b'{\n  "text": "a",\n  "signed": 1\n}\n', "missing field `unsigned` at line 4 column 1"),
        (b'{"text": 5}', "text: invalid type: integer `5`, expected a string at line 1 column 10"),
        (b'{"text": -5}', "text: invalid type: integer `-5`, expected a string at line 1 column 11"),
        (b'{"te\\u0078t": 5}', "text: invalid type: integer `5`, expected a string at line 1 column 15"),
        (b'{"text": null}', "text: invalid type: null, expected a string at line 1 column 13"),
        (b'{"text": [1]}', "text: invalid type: sequence, expected a string at line 1 column 9"),
        (b'{"signed": {}}', "signed: invalid type: map, expected i32 at line 1 column 11"),
        (b'{"signed": true}', "signed: invalid type: boolean `true`, expected i32 at line 1 column 15"),
        (b'{"signed": "10"}', 'signed: invalid type: string "10", expected i32 at line 1 column 15'),
        (b'{"signed": 10.0}', "signed: invalid type: floating point `10.0`, expected i32 at line 1 column 15"),
        (b'{"signed": 1e3}', "signed: invalid type: floating point `1000.0`, expected i32 at line 1 column 14"),
        (b'{"signed": -0}', "signed: invalid type: floating point `-0.0`, expected i32 at line 1 column 13"),
        (b'{"signed": 3000000000}', "signed: invalid value: integer `3000000000`, expected i32 at line 1 column 21"),
        (b'{"unsigned": -1}', "unsigned: invalid value: integer `-1`, expected u32 at line 1 column 15"),
        (
            b'{"unsigned": 123456789012345678901234567890}',
            "unsigned: invalid type: floating point `123456789012345680000000000000.0`, expected u32"
            " at line 1 column 43",
        ),
        (b'{"text": "\xc3\xa9", "signed": ""}', 'signed: invalid type: string "", expected i32 at line 1 column 27'),
        (b'{"text": "a", "text": "b"}', "duplicate field `text` at line 1 column 20"),
        (b'{"text": "a", "text" : "b"}', "duplicate field `text` at line 1 column 21"),
        (b'{"text": 5, nonsense', "text: invalid type: integer `5`, expected a string at line 1 column 10"),
    ],
)
def test_what_is_not_wanted_is_said_as_serde_says_it(body: bytes, expected: str) -> None:
    assert problem(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"nope", "expected ident at line 1 column 2"),
        (b"\xef\xbb\xbf{}", "expected value at line 1 column 1"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"{5: 1}", "key must be a string at line 1 column 2"),
        (b'{"text"', "EOF while parsing an object at line 1 column 7"),
        (b'{"text" "a"}', "expected `:` at line 1 column 9"),
        (b'{"text":', "text: EOF while parsing a value at line 1 column 8"),
        (b'{"text": }', "text: expected value at line 1 column 10"),
        (b'{"text": tru', "text: EOF while parsing a value at line 1 column 12"),
        (b'{"text": trux}', "text: expected ident at line 1 column 13"),
        (b'{"text": "a"', "EOF while parsing an object at line 1 column 12"),
        (b'{"text": "a" "b"}', "expected `,` or `}` at line 1 column 14"),
        (b'{"text": "a",', "EOF while parsing a value at line 1 column 13"),
        (b'{"text": "a",}', "trailing comma at line 1 column 14"),
        (b'{"text": "abc', "text: EOF while parsing a string at line 1 column 13"),
        (b'{"text": "abc\\', "text: EOF while parsing a string at line 1 column 14"),
        (b'{"text": "a\\qb"}', "text: invalid escape at line 1 column 13"),
        (b'{"text": "a\xff"}', "text: invalid unicode code point at line 1 column 13"),
        (
            b'{"text": "a\nb"}',
            "text: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0",
        ),
        (b'{"signed": 01}', "signed: invalid number at line 1 column 13"),
        (b'{"signed": 1.}', "signed: invalid number at line 1 column 14"),
        (b'{"signed": -}', "signed: invalid number at line 1 column 13"),
        (b'{"signed": 1e', "signed: EOF while parsing a value at line 1 column 13"),
        (b'{"signed": 1e999}', "signed: number out of range at line 1 column 16"),
        (b'{"other": ]}', "other: expected value at line 1 column 11"),
        (b'{"other": [1,', "other: EOF while parsing a value at line 1 column 13"),
    ],
)
def test_what_is_no_json_is_said_as_serde_says_it(body: bytes, expected: str) -> None:
    assert problem(body) == expected


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null"])
def test_what_is_no_object_is_unfit(body: bytes) -> None:
    assert "expected an object at line 1" in problem(body)


@pytest.mark.parametrize("word", [b"NaN", b"-Infinity", b'"\x00"', b"01", b"'a'"])
def test_what_only_python_takes_for_json_is_refused_in_unknown_fields_too(word: bytes) -> None:
    with pytest.raises(Rejection, match=SYNTAX):
        axum.decode(b'{"x": ' + word + b', "text": "a", "signed": 1, "unsigned": 1}', Body)


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    VALUES | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
)


@given(st.fixed_dictionaries({"text": st.text(), "signed": st.integers(), "unsigned": st.integers()}), DOCUMENTS)
def test_a_body_is_taken_if_its_fields_are(body: dict[str, object], more: object) -> None:
    said = msgspec.json.encode({"more": more} | body)
    signed, unsigned = body["signed"], body["unsigned"]
    assert isinstance(signed, int) and isinstance(unsigned, int)
    if -(2**31) <= signed < 2**31 and 0 <= unsigned < 2**32:
        assert axum.decode(said, Body) == msgspec.convert(body, Body)
    else:
        assert "expected i32" in problem(said) or "expected u32" in problem(said)


@given(st.binary() | st.text(alphabet='{}[]":,\\tesigndu01-.e \n').map(str.encode), st.integers(0, 80))
def test_nothing_is_worse_than_refused(noise: bytes, place: int) -> None:
    good = msgspec.json.encode(GOOD)
    for body in (noise, good[:place] + noise + good[place:], good[:place]):
        try:
            assert isinstance(axum.decode(body, Body), Body)
        except BadRequest as error:
            assert error.status in (400, 422)


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": [' + b"0," * 1_000_000,
        b'{"x": ' + b"9" * 2_000_000,
        b'{"x": [' + b"-1e5," * 400_000,
        b'{"x": [' + b"[],{}," * 300_000,
        b'{"signed": ' + b"9" * 2_000_000,
        b'{"text": "' + b"\\n" * 1_000_000,
        b"{" + b'"":0,' * 400_000,
        b'{"text": "' + b"\n" * 2_000_000,
        b"[" * 2_000_000,
        b" " * 2_000_000,
    ],
)
def test_a_hostile_body_is_refused_at_once(body: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(BadRequest):
        axum.decode(body, Body)
    assert time.process_time() - begin < SECONDS
