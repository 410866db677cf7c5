"""How long a worker may be silent."""

from plait.fleet.process import LOAD_SECONDS, load_seconds
from plait.fleet.watch import longest_silence


def test_a_worker_may_be_silent_for_as_long_as_its_steps_suggest() -> None:
    assert longest_silence(0.1, 0.01, hang_seconds=15) == 15
    assert longest_silence(3, 0.05, hang_seconds=15) == 30


def test_who_writes_slowly_may_have_to_read_a_prompt_next() -> None:
    assert longest_silence(1.25, 1.25, hang_seconds=15) == 80


def test_the_first_step_has_longer() -> None:
    assert longest_silence(None, None, hang_seconds=15) == 60
    assert longest_silence(None, None, hang_seconds=100) == 400


def test_a_load_may_take_as_long_as_a_slow_disk_needs_for_the_file() -> None:
    assert load_seconds(0) == LOAD_SECONDS
    assert load_seconds(20_000_000_000) == LOAD_SECONDS + 1000
