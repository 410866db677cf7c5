"""How long a replica waits for its next worker, and when it is given up for a while."""

from plait.fleet.supervisor import Record, delay


def record(*deaths: float) -> Record:
    """Of workers that were of no use."""
    record = Record()
    for moment in deaths:
        record.note(moment, was_useful=False)
    return record


def test_the_first_death_costs_no_time_and_each_further_twice_as_much() -> None:
    assert [delay(n) for n in range(1, 9)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert delay(10_000) == 30


def test_five_deaths_in_a_minute_are_enough() -> None:
    assert not record(0, 1, 2, 3).is_hopeless
    assert record(0, 1, 3, 7, 15).is_hopeless


def test_a_probe_that_dies_too_opens_the_breaker_again() -> None:
    assert record(0, 1, 3, 7, 15, 46).is_hopeless


def test_deaths_far_apart_are_bad_luck() -> None:
    assert not record(0, 40, 80, 120, 160).is_hopeless


def test_a_worker_that_was_of_use_begins_a_new_record() -> None:
    deaths = record(0, 1, 2, 3)
    deaths.note(4, was_useful=True)
    assert deaths.n_in_a_row == 1
    assert not deaths.is_hopeless


def test_workers_that_die_slowly_are_started_ever_later() -> None:
    deaths = record(*range(0, 400, 40))
    assert not deaths.is_hopeless
    assert delay(deaths.n_in_a_row) == 30


def test_what_is_hopeless_stays_so_until_a_worker_is_of_use() -> None:
    deaths = record(0, 1, 3, 7, 15, 46, 77, 108, 139)
    assert deaths.is_hopeless
    deaths.note(140, was_useful=True)
    assert not deaths.is_hopeless
