"""What the prefix cache relies on, of the fake context and of libllama's alike: what is kept is what was there."""

import pytest

from plait.errors import GenerationFailed
from tests.contract.conftest import POOL, Subject
from tests.contract.test_context import PROMPT, continuation, read, write


def goes_on(subject: Subject, stream: int) -> list[int]:
    """What follows PROMPT, whose first 90 tokens are in a stream."""
    first = read(subject, stream, PROMPT[90:], start=90)
    return [first, *write(subject, stream, [*PROMPT, first], 5)]


def computed(subject: Subject) -> list[int]:
    """The same, computed: in the chunks that `goes_on` has."""
    subject.context.trim(1, 0)
    read(subject, 1, PROMPT[:90])
    expected = goes_on(subject, 1)
    subject.context.trim(1, 0)
    return expected


def test_what_is_kept_goes_on_as_if_it_had_been_computed(subject: Subject) -> None:
    expected = computed(subject)
    read(subject, 2, PROMPT[:90])
    subject.context.restore(1, [subject.context.save(2, 0)])
    assert goes_on(subject, 1) == expected


def test_a_state_is_moved_without_the_buffers_of_the_last_one(subject: Subject) -> None:
    expected = computed(subject)
    read(subject, 2, PROMPT[:90])
    kept = subject.context.save(2, 0)
    subject.context.drop_buffers()
    assert subject.context.n_buffer_bytes == 0
    subject.context.restore(1, [kept])
    assert goes_on(subject, 1) == expected


@pytest.mark.parametrize("borders", [(64,), (1, 89), (10, 64, 70)])
def test_ranges_of_tokens_are_joined_again(subject: Subject, borders: tuple[int, ...]) -> None:
    expected = computed(subject)
    read(subject, 2, PROMPT[:90])
    rest, parts, at = subject.context.save(2, 0), [], 0
    for border in borders:
        part, rest = rest.split(border - at)
        parts.append(part)
        at = border
    subject.context.restore(1, [*parts, rest])
    assert goes_on(subject, 1) == expected


def test_a_rest_is_kept_alone(subject: Subject) -> None:
    expected = computed(subject)
    read(subject, 2, PROMPT[:70])
    beginning = subject.context.save(2, 0)
    read(subject, 2, PROMPT[70:90], start=70)
    subject.context.restore(1, [beginning.split(30)[0], subject.context.save(2, 30)])
    assert goes_on(subject, 1) == expected


def test_cells_go_through_a_file(subject: Subject) -> None:
    expected = computed(subject)
    read(subject, 2, PROMPT[:90])
    beginning, rest = subject.context.save(2, 0).split(40)
    payload = bytearray(b"".join(rest.buffers()))
    assert len(payload) == rest.n_bytes
    subject.context.restore(1, [beginning, subject.context.loaded(40, 50, payload)])
    assert goes_on(subject, 1) == expected


def test_cells_of_another_number_of_tokens_are_refused(subject: Subject) -> None:
    read(subject, 2, PROMPT[:90])
    payload = bytearray(b"".join(subject.context.save(2, 0).buffers()))
    with pytest.raises(ValueError, match="cells"):
        subject.context.loaded(0, 89, payload)


def test_bytes_are_those_of_tokens(subject: Subject) -> None:
    read(subject, 2, PROMPT)
    whole, half = subject.context.save(2, 0), subject.context.save(2, 50)
    assert whole.n_bytes == 2 * half.n_bytes == sum(map(len, whole.buffers())) > 0
    assert sum(part.n_bytes for part in whole.split(33)) == whole.n_bytes


def test_a_whole_state_is_kept_and_used_again(whole_subject: Subject) -> None:
    context = whole_subject.context
    expected = continuation(whole_subject, 1)
    context.trim(1, 0)
    read(whole_subject, 2, PROMPT[:64])
    kept = context.save(2, 0)
    payload = bytearray(b"".join(kept.buffers()))
    context.restore(1, [context.loaded(0, 64, payload)])
    first = read(whole_subject, 1, PROMPT[64:], start=64)
    assert not context.can_cut
    assert first == expected[0]


def test_streams_that_are_kept_whole_can_be_cut_back(snapshots: Subject) -> None:
    context, expected = snapshots.context, computed(snapshots)
    assert context.can_trim
    assert not context.can_cut
    read(snapshots, 2, PROMPT[:90])
    payload = bytearray(b"".join(context.save(2, 0).buffers()))
    read(snapshots, 2, PROMPT[:20], start=90)
    context.restore(1, [context.loaded(0, 90, payload)])
    assert goes_on(snapshots, 1) == expected
    context.copy(2, 1, 90)
    assert goes_on(snapshots, 1) == expected


def test_a_copy_takes_no_cells_until_it_differs(pool: Subject) -> None:
    read(pool, 0, PROMPT)
    pool.context.copy(0, 1, 80)
    assert (pool.context.n_free, pool.context.n_held) == (POOL - 100, 100)
    read(pool, 1, PROMPT[:10], start=80)
    assert pool.context.n_free == POOL - 110
    pool.context.trim(0, 0)
    assert (pool.context.n_free, pool.context.n_held) == (POOL - 90, 90)


def test_a_full_pool_takes_nothing_back(pool: Subject) -> None:
    for stream in (0, 1):
        read(pool, stream, [(i * 7 + stream) % 200 + 20 for i in range(500)])
    kept = pool.context.save(0, 0)
    with pytest.raises(GenerationFailed):
        pool.context.restore(2, [kept])
    assert pool.context.n_free == POOL - 1000
    pool.context.trim(1, 0)
    pool.context.restore(2, [kept])


def test_cells_that_lie_scattered_are_kept_in_order(pool: Subject) -> None:
    expected = computed(pool)
    for i in range(0, 90, 10):
        read(pool, 2, PROMPT[i : i + 10], start=i)
        read(pool, 3, [(i * 7 + k) % 200 + 20 for k in range(10)], start=i)
    pool.context.trim(3, 0)
    kept = pool.context.save(2, 0)
    pool.context.restore(1, [kept])
    pool.context.trim(2, 0)
    assert goes_on(pool, 1) == expected
