"""What the engine relies on, of the fake context and of libllama's alike."""

import pytest

from tests.contract.conftest import Subject

PROMPT = [(i * 37) % 200 + 20 for i in range(100)]


def read(subject: Subject, stream: int, tokens: list[int], start: int = 0) -> int:
    """Decode tokens in canonical chunks; the best token after them."""
    while tokens:
        n = min(64 - start % 64, len(tokens))
        subject.context.decode([(stream, start, tokens[:n], n == len(tokens))])
        start, tokens = start + n, tokens[n:]
    return subject.best(0)


def write(subject: Subject, stream: int, tokens: list[int], n: int) -> list[int]:
    """Go on from `tokens`, whose last one is not decoded yet, by `n` tokens."""
    tokens = list(tokens)
    for _ in range(n):
        subject.context.decode([(0, 0, [5], True), (stream, len(tokens) - 1, tokens[-1:], True)])
        tokens.append(subject.best(1))
        subject.context.trim(0, 0)
    return tokens[-n:]


def continuation(subject: Subject, stream: int) -> list[int]:
    """What follows PROMPT, read and written in `stream` and nothing else."""
    first = read(subject, stream, PROMPT)
    return [first, *write(subject, stream, [*PROMPT, first], 5)]


def test_a_continuation_is_the_same_twice(subject: Subject) -> None:
    first = continuation(subject, 1)
    subject.context.trim(1, 0)
    assert continuation(subject, 1) == first


def test_a_copy_goes_on_as_its_source(subject: Subject) -> None:
    first = read(subject, 2, PROMPT)
    subject.context.copy(2, 1, len(PROMPT))
    assert write(subject, 1, [*PROMPT, first], 5) == continuation_of_source(subject, first)


def continuation_of_source(subject: Subject, first: int) -> list[int]:
    subject.context.trim(1, 0)
    subject.context.swap(1, 2)
    return write(subject, 1, [*PROMPT, first], 5)


def test_a_copy_of_a_beginning_is_that_beginning(subject: Subject) -> None:
    expected = continuation(subject, 1)
    read(subject, 2, [*PROMPT[:64], *reversed(PROMPT)])
    subject.context.copy(2, 1, 64)
    first = read(subject, 1, PROMPT[64:], start=64)
    assert [first, *write(subject, 1, [*PROMPT, first], 5)] == expected


def test_a_copy_replaces_what_was_there(subject: Subject) -> None:
    read(subject, 1, PROMPT)
    read(subject, 2, PROMPT[:10])
    subject.context.copy(1, 2, 64)
    assert read(subject, 2, PROMPT[64:], start=64) == read_again(subject)


def read_again(subject: Subject) -> int:
    subject.context.trim(3, 0)
    return read(subject, 3, PROMPT)


def test_a_trimmed_stream_goes_on_from_what_it_kept(subject: Subject) -> None:
    expected = continuation(subject, 1)
    subject.context.trim(1, 64)
    first = read(subject, 1, PROMPT[64:], start=64)
    assert [first, *write(subject, 1, [*PROMPT, first], 5)] == expected


def test_streams_exchange_what_they_hold(subject: Subject) -> None:
    expected = continuation(subject, 1)
    subject.context.trim(1, 0)
    first = read(subject, 3, PROMPT)
    read(subject, 1, PROMPT[:20])
    subject.context.swap(1, 3)
    assert write(subject, 1, [*PROMPT, first], 5) == expected[1:]


def test_rows_of_one_call_do_not_see_each_other(subject: Subject) -> None:
    first = [read(subject, stream, PROMPT[stream:]) for stream in (0, 1, 2)]
    rows = [(s, len(PROMPT) - s, [first[s]], True) for s in (0, 1, 2)]
    subject.context.decode(rows)
    together = [subject.best(k) for k in (0, 1, 2)]
    for stream in (0, 1, 2):
        subject.context.trim(stream, len(PROMPT) - stream)
    subject.context.decode(rows[:2])
    assert [subject.best(0), subject.best(1)] == together[:2]


def test_there_are_logits_only_where_they_were_asked_for(subject: Subject) -> None:
    subject.context.decode([(0, 0, [20, 21], False)])
    with pytest.raises((AssertionError, ValueError)):
        subject.best(0)


def test_a_hole_in_a_stream_is_refused(subject: Subject) -> None:
    read(subject, 0, PROMPT[:5])
    with pytest.raises((AssertionError, ValueError)):
        subject.context.decode([(0, 7, [20], True)])


def test_a_whole_state_is_copied_and_moved(whole_subject: Subject) -> None:
    expected = continuation(whole_subject, 1)
    whole_subject.context.trim(1, 0)
    first = read(whole_subject, 2, PROMPT)
    whole_subject.context.copy(2, 3, len(PROMPT))
    whole_subject.context.swap(3, 1)
    assert write(whole_subject, 1, [*PROMPT, first], 5) == expected[1:]


def test_a_whole_state_is_not_cut(whole_subject: Subject) -> None:
    read(whole_subject, 1, PROMPT)
    with pytest.raises((AssertionError, ValueError)):
        whole_subject.context.trim(1, 50)
    with pytest.raises((AssertionError, ValueError)):
        whole_subject.context.copy(1, 2, 50)
