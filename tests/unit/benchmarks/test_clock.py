"""How time is divided."""

import pytest

from benchmarks.clock import Clock, Timer


class Hands:
    """Of a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_what_is_begun_gets_its_share_of_what_is_left() -> None:
    clock = Clock(1.0, 4.0, Hands())
    assert clock.begin(1.0).seconds == pytest.approx(15.0)
    assert clock.begin(1.0).seconds == pytest.approx(20.0)
    assert clock.begin(2.0).seconds == pytest.approx(60.0)


def test_what_one_did_not_use_is_for_those_after_it() -> None:
    hands = Hands()
    clock = Clock(1.0, 2.0, hands)
    clock.begin(1.0)
    hands.seconds += 10.0
    assert clock.begin(1.0).seconds == pytest.approx(50.0)
    assert clock.minutes == pytest.approx(1 / 6)


def test_when_the_time_is_over_nothing_is_left() -> None:
    hands = Hands()
    clock = Clock(1.0, 2.0, hands)
    hands.seconds += 61.0
    assert clock.begin(1.0).seconds == 0.0


def test_a_timer_allows_what_fits_in() -> None:
    hands = Hands()
    timer = Timer(10.0, hands)
    hands.seconds += 6.0
    assert timer.allows(4.0)
    assert not timer.allows(4.1)
