"""What a stream holds goes where it is told to, whole or cut, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plait.llama.context import Context
from plait.llama.model import Model
from tests.native.conftest import ENGINE

TEXT = [int(token) for token in np.random.default_rng(3).integers(4, 260, 256)]
OTHER = TEXT[::-1]


def then(context: Context, stream: int, token: int = 77) -> NDArray[np.float32]:
    """The logits after one more token, which is then taken back."""
    n = context.held(stream)
    context.decode([(stream, n, [token], True)])
    logits = context.logits(0)
    if context.can_trim:
        context.trim(stream, n)
    return logits


def all_held(context: Context) -> list[int]:
    return [context.held(stream) for stream in range(context.n_slots)]


@pytest.mark.parametrize("n", [1, 63, 64, 150, 200])
def test_a_copied_prefix_goes_on_as_its_source_does(context: Context, n: int) -> None:
    context.decode([(0, 0, TEXT[:200], False)])
    context.copy(0, 2, n)
    copied = then(context, 2)
    assert all_held(context) == [200, 0, n, 0]
    context.trim(0, n)
    assert np.array_equal(copied, then(context, 0))


def test_a_copy_replaces_what_was_there(context: Context) -> None:
    context.decode([(0, 0, TEXT[:50], False), (3, 0, OTHER[:100], False)])
    context.copy(0, 3, 50)
    assert all_held(context) == [50, 0, 0, 50]
    assert np.array_equal(then(context, 0), then(context, 3))


def test_a_copy_leaves_its_source_as_it_was(context: Context) -> None:
    context.decode([(0, 0, TEXT[:50], False)])
    before = then(context, 0)
    context.copy(0, 1, 20)
    context.decode([(1, 20, OTHER[:30], False)])
    assert np.array_equal(before, then(context, 0))


def test_copying_nothing_empties(context: Context) -> None:
    context.decode([(0, 0, TEXT[:50], False), (1, 0, TEXT[:50], False)])
    context.copy(0, 1, 0)
    context.copy(2, 0, 0)
    assert all_held(context) == [0, 0, 0, 0]


def test_a_copy_onto_itself_is_a_cut(context: Context) -> None:
    context.decode([(1, 0, TEXT[:50], False)])
    context.copy(1, 1, 30)
    assert all_held(context) == [0, 30, 0, 0]


def test_swapping_there_and_back_changes_no_bit(context: Context) -> None:
    context.decode([(0, 0, TEXT[:90], False), (1, 0, OTHER[:40], False)])
    first, second = then(context, 0), then(context, 1)
    context.swap(0, 1)
    assert all_held(context) == [40, 90, 0, 0]
    assert np.array_equal(first, then(context, 1))
    assert np.array_equal(second, then(context, 0))
    context.swap(1, 0)
    assert np.array_equal(first, then(context, 0))
    assert np.array_equal(second, then(context, 1))


@pytest.mark.parametrize("pair", [(0, 3), (3, 0)])
def test_swapping_with_nothing_is_a_move(context: Context, pair: tuple[int, int]) -> None:
    context.decode([(0, 0, TEXT[:90], False)])
    before = then(context, 0)
    context.swap(*pair)
    assert all_held(context) == [0, 0, 0, 90]
    assert np.array_equal(before, then(context, 3))


def test_swapping_with_itself_or_empty_with_empty_does_nothing(context: Context) -> None:
    context.decode([(0, 0, TEXT[:9], False)])
    before = then(context, 0)
    context.swap(0, 0)
    context.swap(1, 2)
    assert all_held(context) == [9, 0, 0, 0]
    assert np.array_equal(before, then(context, 0))


def test_a_cut_stream_goes_on_with_other_tokens(context: Context) -> None:
    context.decode([(0, 0, TEXT[:64], False), (1, 0, TEXT[:64], False)])
    context.trim(0, 30)
    context.decode([(0, 30, OTHER[:34], False)])
    context.decode([(2, 0, TEXT[:30] + OTHER[:34], False)])
    assert np.allclose(then(context, 0), then(context, 2), atol=0.05)
    assert not np.allclose(then(context, 0), then(context, 1), atol=0.05)


def test_an_emptied_stream_begins_anew(context: Context) -> None:
    context.decode([(0, 0, OTHER[:64], False)])
    context.trim(0, 0)
    context.decode([(0, 0, TEXT[:64], True)])
    anew = context.logits(0)
    context.decode([(1, 0, TEXT[:64], True)])
    assert np.array_equal(anew, context.logits(0))


def test_the_buffers_that_states_are_moved_through_are_counted(context: Context) -> None:
    context.drop_buffers()
    context.decode([(0, 0, TEXT[:200], False), (1, 0, OTHER[:40], False)])
    n_bytes = context.save(0, 0).n_bytes
    assert context.n_buffer_bytes > n_bytes
    context.swap(0, 1)
    assert context.n_buffer_bytes > n_bytes + context.save(0, 0).n_bytes


REFUSED: list[tuple[Callable[[Context], object], str]] = [
    (lambda c: c.held(4), "no stream 4"),
    (lambda c: c.held(-1), "no stream -1"),
    (lambda c: c.trim(4, 0), "no stream 4"),
    (lambda c: c.trim(-1, 0), "no stream -1"),
    (lambda c: c.trim(0, 11), "holds 10 tokens, not 11"),
    (lambda c: c.trim(0, -1), "holds 10 tokens, not -1"),
    (lambda c: c.copy(0, 4, 5), "no stream 4"),
    (lambda c: c.copy(0, -1, 5), "no stream -1"),
    (lambda c: c.copy(4, 0, 5), "no stream 4"),
    (lambda c: c.copy(-1, 0, 5), "no stream -1"),
    (lambda c: c.copy(0, 1, 11), "holds 10 tokens, not 11"),
    (lambda c: c.copy(0, 1, -1), "holds 10 tokens, not -1"),
    (lambda c: c.copy(1, 0, 1), "holds 0 tokens, not 1"),
    (lambda c: c.swap(0, 4), "no stream 4"),
    (lambda c: c.swap(-1, 0), "no stream -1"),
    (lambda c: c.swap(-1, -1), "no stream -1"),
]


@pytest.mark.parametrize(("call", "reason"), REFUSED)
def test_what_would_abort_is_refused(context: Context, call: Callable[[Context], object], reason: str) -> None:
    context.decode([(0, 0, TEXT[:10], False)])
    before = then(context, 0)
    with pytest.raises(ValueError, match=reason):
        call(context)
    assert all_held(context) == [10, 0, 0, 0]
    assert np.array_equal(before, then(context, 0))


def test_a_recurrent_state_is_copied_and_swapped_whole(recurrent_context: Context) -> None:
    context = recurrent_context
    context.decode([(0, 0, TEXT[:40], False)])
    context.copy(0, 1, 40)
    context.decode([(2, 0, OTHER[:20], False)])
    context.swap(1, 2)
    assert all_held(context) == [40, 20, 40, 0]
    assert np.array_equal(then(context, 0), then(context, 2))


@pytest.mark.parametrize("call", [lambda c: c.trim(0, 5), lambda c: c.copy(0, 1, 5)])
def test_a_recurrent_state_is_not_cut(recurrent_context: Context, call: Callable[[Context], object]) -> None:
    recurrent_context.decode([(0, 0, TEXT[:10], False), (1, 0, OTHER[:10], False)])
    with pytest.raises(ValueError, match="cannot be cut back"):
        call(recurrent_context)
    assert all_held(recurrent_context) == [10, 10, 0, 0]
    recurrent_context.trim(0, 0)
    recurrent_context.decode([(0, 0, TEXT[:10], False)])


STREAM = st.integers(0, 3)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("decode"), STREAM, st.lists(st.integers(4, 260), min_size=1, max_size=20)),
        st.tuples(st.just("copy"), STREAM, STREAM, st.floats(0, 1)),
        st.tuples(st.just("swap"), STREAM, STREAM),
        st.tuples(st.just("trim"), STREAM, st.floats(0, 1)),
    ),
    max_size=12,
)


def play(context: Context, texts: list[list[int]], move: tuple[object, ...]) -> None:
    """Does the same to the streams and to plain lists."""
    match move:
        case "decode", int(stream), list(tokens):
            context.decode([(stream, len(texts[stream]), tokens, False)])
            texts[stream] += tokens
        case "copy", int(src), int(dst), float(share):
            n = int(share * len(texts[src]))
            context.copy(src, dst, n)
            texts[dst] = texts[src][:n]
        case "swap", int(a), int(b):
            context.swap(a, b)
            texts[a], texts[b] = texts[b], texts[a]
        case "trim", int(stream), float(share):
            n = int(share * len(texts[stream]))
            context.trim(stream, n)
            texts[stream] = texts[stream][:n]


@settings(max_examples=40)
@given(moves=MOVES)
def test_streams_are_lists(model: Model, moves: list[tuple[object, ...]]) -> None:
    """After any moves, each stream goes on like one that was given its tokens at once."""
    texts: list[list[int]] = [[], [], [], []]
    with Context(model, ENGINE, n_ctx=256, n_slots=5) as context:
        for move in moves:
            play(context, texts, move)
        for stream, text in enumerate(texts):
            assert context.held(stream) == len(text)
            context.trim(4, 0)
            context.decode([(4, 0, [*text, 77], True)])
            assert np.allclose(context.logits(0), then(context, stream), atol=0.2)
