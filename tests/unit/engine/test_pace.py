"""How much prompt a step may take."""

from hypothesis import given
from hypothesis import strategies as st

from plait.engine.pace import ANEW, Pace
from plait.engine.sequence import BLOCK

seconds = st.floats(1e-6, 10.0)


@given(decode=seconds, prompt=seconds, has_writers=st.booleans())
def test_the_budget_is_whole_blocks_within_the_batch(decode: float, prompt: float, has_writers: bool) -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    pace.heard_decode(decode)
    pace.heard_prompt(prompt, 64)
    n = pace.budget(has_writers)
    assert n % BLOCK == 0
    assert BLOCK <= n <= 2048


def test_the_budget_holds_the_target() -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    pace.heard_decode(0.015)
    pace.heard_prompt(0.64, 2048)
    assert pace.budget(has_writers=True) == 256


def test_the_budget_is_the_nearest_to_the_target_and_not_the_next_below() -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    pace.heard_decode(0.02)
    pace.heard_prompt(0.05, 64)
    assert pace.budget(has_writers=True) == 128


def test_a_pass_that_is_not_whole_blocks_is_not_exceeded() -> None:
    pace = Pace(target=0.1, n_batch=100, n_ubatch=100)
    pace.heard_prompt(0.001, 64)
    assert pace.budget(has_writers=True) == pace.budget(has_writers=False) == BLOCK


def test_with_nobody_writing_a_step_is_one_pass_over_the_weights() -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    pace.heard_prompt(0.1, 64)
    assert pace.budget(has_writers=False) == 512


def test_a_slow_machine_takes_short_steps_even_with_nobody_writing() -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    assert pace.budget(has_writers=False) == BLOCK
    pace.heard_prompt(1.0, 64)
    assert pace.budget(has_writers=False) == 128


def test_short_chunks_teach_nothing() -> None:
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    pace.heard_prompt(1.0, 10)
    assert pace.prompt_seconds == 0


def heard(*medians: float) -> Pace:
    """A pace that knows how long 1, 2, … rows take."""
    pace = Pace(target=0.1, n_batch=2048, n_ubatch=512)
    for n_rows, seconds in enumerate(medians, 1):
        for disturbed in (0.0, 0.0, 0.0, 1.0, 1.0):
            pace.heard_rows(seconds + disturbed, n_rows)
    return pace


def test_rows_are_added_where_more_of_them_take_less_time() -> None:
    pace = heard(0.005, 0.020, 0.018, 0.012)
    assert [pace.n_rows(n, most=16) for n in (1, 2, 3, 4, 5)] == [1, 4, 4, 4, 5]


def test_rows_that_were_slow_once_are_not_taken_for_slow_for_ever() -> None:
    """Each step takes as long as its rows say, and three were slow only while that was found out."""
    pace = heard(0.005, 0.006, 0.018, 0.012)
    widths = []
    for _ in range(10 * ANEW):
        widths.append(pace.n_rows(3, most=4))
        pace.heard_rows(0.010 if widths[-1] == 3 else 0.012, widths[-1])
    assert set(widths[:ANEW]) == {3, 4}
    assert widths[-1] == 3


def test_no_more_rows_are_added_than_there_are_streams() -> None:
    assert heard(0.005, 0.020, 0.018, 0.012).n_rows(2, most=3) == 3


def test_rows_are_not_added_for_less_than_a_millisecond() -> None:
    assert heard(0.005, 0.0205, 0.020).n_rows(2, most=16) == 2


def test_rows_are_not_added_by_what_was_seen_once() -> None:
    pace = heard(0.005, 0.020)
    pace.heard_rows(0.001, 3)
    assert pace.n_rows(2, most=16) == 2
