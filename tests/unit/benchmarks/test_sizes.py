"""How much work a machine is given."""

from benchmarks.sizes import SIZES, estimated, fitting
from benchmarks.workloads.base import Figure


def speeds(reading: float, writing: float) -> list[Figure]:
    return [Figure("prompt of 512", reading, "tokens/s"), Figure("16 writing", writing, "tokens/s")]


def test_each_size_is_less_than_the_one_before() -> None:
    seconds = [estimated(size, speeds(500, 400), 3) for size in SIZES]
    assert seconds == sorted(seconds, reverse=True)


def test_a_fast_machine_gets_all_and_a_slow_one_the_least() -> None:
    assert fitting(speeds(5000, 2000), 250, 3) == SIZES[0]
    assert fitting(speeds(50, 40), 250, 3) == SIZES[-1]


def test_what_is_given_fits_in() -> None:
    assert estimated(fitting(speeds(500, 400), 300, 4), speeds(500, 400), 4) <= 300
