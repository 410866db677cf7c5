"""What pairs of times tell, counted by hand."""

from benchmarks.tenants import among_all, either_way, in_pairs

DRIFTING = [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (8.0, 7.0)]
"""What was asked before comes sooner in three of four, while all becomes slower."""


def test_in_pairs_only_what_was_asked_together_is_compared() -> None:
    assert in_pairs(DRIFTING) == 3 / 4


def test_among_all_each_is_beside_each() -> None:
    assert among_all(DRIFTING) == (4 + 3 + 2 + 0) / 16


def test_slower_tells_as_much_as_sooner() -> None:
    assert either_way(0.25) == either_way(0.75) == 0.75
