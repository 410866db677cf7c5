"""What is looked for in a body before it is parsed: towers of brackets, and keys that stand twice in one object.

Pure. No call into C takes more than a window at a time, so that a thread that scans a hostile body lets others run.
"""

import re
from json import loads

from plait.errors import BadRequest

MAX_DEPTH = 64
"""Deeper JSON is an attack on parsers."""
MAX_SIGNS = 262_144
"""Brackets and strings of a body, and the commas in its objects: far more than any request has, and less than half a
second's work."""
WINDOW = 65_536
"""Bytes; two at least, or an escape would not fit."""

_IN_OBJECT = re.compile(rb'[{}\[\]",]')
_ELSEWHERE = re.compile(rb'[{}\[\]"]')
_LETTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Of a string, up to its end or the window's."""


def scan(body: bytes, *, may_repeat: bool = False, window: int = WINDOW) -> None:
    """Refuse JSON that is nested deeper than `MAX_DEPTH`, or in which an object has a key twice, unless it may: one
    parser takes the first, another the last.

    In time proportional to its length, without recursion. What is no JSON at all is left to a parser to refuse.
    """
    levels: list[set[bytes] | None] = []
    keys: set[bytes] | None = None
    """Of the object that this is in; None in an array, and where nobody asks."""
    awaits_key = False
    field = b""
    """The latest key of the outermost object: what is wrong below is its fault."""
    n_signs = at = 0
    while (at := _find(_ELSEWHERE if keys is None else _IN_OBJECT, body, at, window)) < len(body):
        match body[at : at + 1]:
            case b"{" | b"[" as bracket:
                levels.append(keys)
                if len(levels) > MAX_DEPTH:
                    raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels")
                keys = None if may_repeat or bracket == b"[" else set()
                awaits_key = keys is not None
            case b"}" | b"]" if levels:
                keys, awaits_key = levels.pop(), False
            case b",":
                awaits_key = True
            case b'"':
                end = _end_of_string(body, at + 1, window)
                if awaits_key and keys is not None:
                    key = body[at + 1 : end]
                    field = key if len(levels) == 1 else field
                    _note(keys, key, field)
                at, awaits_key = end, False
        at, n_signs = at + 1, n_signs + 1
        if n_signs > MAX_SIGNS:
            raise BadRequest(f"the body has more than {MAX_SIGNS:,} brackets and strings")


def _find(wanted: re.Pattern[bytes], body: bytes, start: int, window: int) -> int:
    """Where the next of these stands, or the body's end."""
    for begin in range(start, len(body), window):
        if found := wanted.search(body, begin, begin + window):
            return found.start()
    return len(body)


def _end_of_string(body: bytes, start: int, window: int) -> int:
    """Where the quote stands that ends a string, or the body's end: it may lack one."""
    at = start
    while at < len(body) and body[at] != ord('"'):
        letters = _LETTERS.match(body, at, at + window)
        # A backslash at the end of what there is has nothing to be before.
        at = letters.end() if letters and letters.end() > at else len(body)
    return at


def _note(keys: set[bytes], spelled: bytes, field: bytes) -> None:
    key = _said(spelled)
    if key in keys:
        shown, param = (name.decode(errors="replace") for name in (key, _said(field)))
        raise BadRequest(f"the body has the key {shown!r} twice in one object", param=param or None)
    keys.add(key)


def _said(spelled: bytes) -> bytes:
    """What a key says; itself, if that is no JSON."""
    if b"\\" not in spelled:
        return spelled
    try:
        said: str = loads(b'"' + spelled + b'"')
    except ValueError:
        return spelled
    return said.encode(errors="surrogatepass")
