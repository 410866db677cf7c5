"""Bytes in any cut give the same text; a stop string stops exactly, wherever the cuts are."""

from hypothesis import given
from hypothesis import strategies as st

from plait.text.stream import TextStream, held_back


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def said(stream: TextStream, pieces: list[bytes]) -> str:
    text = ""
    for piece in pieces:
        text += stream.feed(piece)
        if stream.is_stopped:
            break
    return text + stream.flush()


sizes = st.lists(st.integers(0, 4))


@given(st.text(), sizes)
def test_text_is_whole_however_its_bytes_are_cut(text: str, sizes: list[int]) -> None:
    assert said(TextStream(), cut(text.encode(), sizes)) == text


@given(st.binary(), sizes)
def test_broken_bytes_become_replacement_characters(data: bytes, sizes: list[int]) -> None:
    assert said(TextStream(), cut(data, sizes)) == data.decode(errors="replace")


@given(st.text("abé"), sizes, st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_that_was_completed(text: str, sizes: list[int], stops: list[str]) -> None:
    pieces = cut(text.encode(), sizes)
    out = said(TextStream(tuple(stops)), pieces)
    assert text.startswith(out)
    assert not any(stop in out for stop in stops)
    assert out == text or any(text[len(out) :].startswith(stop) for stop in stops)


def test_nothing_that_may_belong_to_a_stop_is_said_early() -> None:
    stream = TextStream(("END",))
    assert [stream.feed(piece) for piece in (b"an E", b"N", b"gel")] == ["an ", "", "ENgel"]


def test_the_earliest_of_several_stops_wins() -> None:
    stream = TextStream(("lazy", "quick"))
    assert stream.feed(b"the quick and lazy") == "the "
    assert stream.stopped_by == "quick"
    assert stream.flush() == ""


def test_half_a_character_at_the_end_is_not_lost() -> None:
    stream = TextStream()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.flush() == "\ufffd"


@given(st.text("ab", max_size=8), st.text("ab", min_size=1, max_size=5))
def test_held_back_is_the_longest_beginning_of_the_stop(text: str, stop: str) -> None:
    n = held_back(text, stop)
    assert text.endswith(stop[:n])
    assert not any(text.endswith(stop[:m]) for m in range(n + 1, len(stop)))


@given(st.text("ab", max_size=12), sizes, st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_kept_stop_ends_the_text_behind_it(text: str, sizes: list[int], stops: list[str]) -> None:
    pieces = cut(text.encode(), sizes)
    stream, out = TextStream(tuple(stops), keep=True), ""
    for piece in pieces:
        before = out
        out += stream.feed(piece)
        assert stream.is_stopped == any(stop in out for stop in stops)
        assert out == before + piece.decode()
        if stream.is_stopped:
            return
    assert out + stream.flush() == text


def test_stops_do_not_count_in_the_first_tokens() -> None:
    stream = TextStream((".",), keep=True, after=2)
    assert [stream.feed(piece) for piece in (b"a.", b".", b"b", b"c.")] == ["a.", ".", "b", "c."]
    assert stream.stopped_by == "."


def test_a_stop_that_begins_in_the_first_tokens_must_end_behind_them() -> None:
    stream = TextStream(("ab", "User:"), keep=True, after=2)
    for piece in (b"ab", b"a"):
        assert stream.feed(piece) and not stream.is_stopped
    assert stream.feed(b"b") == "b"
    assert stream.stopped_by == "ab"
