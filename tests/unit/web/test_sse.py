"""Server-sent events, as a parser sees them."""

import pytest

from plait.web import sse


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (sse.event(b'{"a":1}'), b'data: {"a":1}\n\n'),
        (sse.event(b"{}", "ping"), b"event: ping\ndata: {}\n\n"),
        (sse.comment("prompt 1/2"), b": prompt 1/2\n\n"),
        (sse.DONE, b"data: [DONE]\n\n"),
    ],
)
def test_each_frame_ends_with_an_empty_line(written: bytes, expected: bytes) -> None:
    assert written == expected
