"""Rounds, and who takes part in them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.client import Client
from benchmarks.clock import Timer
from benchmarks.compare import Measured, compare, shuffled
from benchmarks.contestants import Contestant, Role, contestants
from benchmarks.rivals.base import Setup
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.base import QUICK, Figure, Goal, Of, Stage, Workload
from tests.unit.benchmarks.rival import FakeRival
from tests.unit.benchmarks.test_clock import Hands


class Match:
    """A workload whose turns take as many seconds as is said for each contestant, on a clock of their own."""

    def __init__(self, seconds: Mapping[Role, float], of: Of = "best") -> None:
        self.hands = Hands()
        self.seconds = list(seconds.values())
        workload = Workload("match", "A match", 1, lambda size: 64, self.run, (Goal("tokens/s", of, ">=", 1.0),))
        self.measured = Measured(workload, QUICK, [])
        for number, role in enumerate(seconds):
            setup = Setup(Path("a.gguf"), n_slots=number)
            each = Contestant(role, role, FakeRival(), setup, is_needed=role in ("plait", "same slots"))
            self.measured.contestants.append(each)

    def run(self, stage: Stage, size: object, round: int) -> list[Figure]:
        """The number of slots tells who it is."""
        seconds = self.seconds[stage.setup.n_slots]
        self.hands.seconds += seconds
        return [Figure("tokens/s", 1 / seconds, "tokens/s")]

    def play(self, seconds: float, n_rounds: int = 9) -> dict[str, int]:
        """How many turns each had."""
        compare(self.measured, Path("a.gguf"), Client(), Timer(seconds, self.hands), n_rounds)
        return {each.label: len(each.rounds) for each in self.measured.contestants}


def test_a_round_is_begun_only_when_it_will_end_in_time() -> None:
    """A round of both takes 5 s; what another one took, who is in the first round only, does not count."""
    assert Match({"plait": 2.0, "same slots": 3.0}).play(19.9) == {"plait": 3, "same slots": 3}
    assert Match({"plait": 2.0, "same slots": 3.0}).play(20.0) == {"plait": 4, "same slots": 4}
    with_slow: dict[Role, float] = {"plait": 2.0, "same slots": 3.0, "slow": 6.0}
    assert Match(with_slow).play(30.0) == {"plait": 4, "same slots": 4, "slow": 1}


def test_time_for_two_more_rounds_of_those_who_decide_is_not_given_away() -> None:
    """A round takes 5 s, and each of the others 4 s, which is what the slowest of its kin took."""
    seconds: dict[Role, float] = {"plait": 1.0, "same slots": 4.0, "default": 4.0, "try": 4.0}
    assert Match(seconds).play(22.9) == {"plait": 3, "same slots": 3, "default": 1, "try": 0}
    assert Match(seconds).play(23.0) == {"plait": 3, "same slots": 3, "default": 1, "try": 1}
    assert Match(seconds).play(14.9) == {"plait": 1, "same slots": 1, "default": 1, "try": 1}


def test_when_time_is_short_only_those_go_on_who_decide() -> None:
    match = Match({"plait": 2.0, "plait, portable": 2.0, "same slots": 3.0})
    match.measured.kernels_differ = True
    assert match.play(19.0) == {"plait": 2, "plait, portable": 3, "same slots": 3}


def test_who_decides_has_a_turn_when_the_time_is_over_and_others_have_none() -> None:
    match = Match({"plait": 2.0, "same slots": 3.0, "try": 1.0})
    assert match.play(0.0) == {"plait": 1, "same slots": 1, "try": 0}
    assert match.measured.contestants[2].trouble == "not run: no time left"


def test_of_those_that_try_to_be_best_only_the_best_goes_on() -> None:
    match = Match({"plait": 2.0, "same slots": 3.0, "try": 1.0, "default": 4.0})
    assert match.play(60.0, 3) == {"plait": 3, "same slots": 1, "try": 3, "default": 1}


def test_a_goal_beside_the_same_slots_keeps_them_in() -> None:
    match = Match({"plait": 2.0, "same slots": 3.0, "try": 1.0}, "same slots")
    assert match.play(60.0, 3) == {"plait": 3, "same slots": 3, "try": 3}


def test_who_does_not_start_is_told_and_the_others_go_on() -> None:
    match = Match({"plait": 2.0, "same slots": 3.0})
    match.measured.contestants[1].rival = FakeRival(is_there=False)
    assert match.play(5.0) == {"plait": 2, "same slots": 0}
    assert match.measured.contestants[1].trouble == "not in the mood"


@pytest.mark.parametrize("error", [KeyError("a_counter"), ConnectionError(), TimeoutError(), ValueError("not JSON")])
def test_whoever_answers_nonsense_is_out_and_the_others_go_on(error: Exception) -> None:
    match = Match({"plait": 2.0, "same slots": 3.0})

    def run(stage: Stage, size: object, round: int) -> list[Figure]:
        if stage.setup.n_slots == 1:
            raise error
        return match.run(stage, size, round)

    match.measured.workload = replace(match.measured.workload, run=run)
    assert match.play(4.0) == {"plait": 2, "same slots": 0}
    assert match.measured.contestants[1].trouble.startswith("gone in round 0")


def test_the_order_is_another_one_each_round_and_the_same_each_time() -> None:
    found = Match(dict.fromkeys(("plait", "same slots", "default", "try"), 1.0)).measured.contestants
    orders = [[each.role for each in shuffled(found, "match", round)] for round in range(8)]
    assert len({tuple(order) for order in orders}) > 2
    assert orders[3] == [each.role for each in shuffled(found, "match", 3)]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=str)
def test_whom_a_goal_names_has_a_turn_whatever_it_takes(workload: Workload) -> None:
    found = contestants(workload, QUICK, Path("a.gguf"), [], kernels_differ=True)
    needed = {each.role for each in found if each.is_needed}
    assert {"plait", "plait, portable"} <= needed
    assert needed & {"same slots", "try"}
    assert "same slots" in needed or all(goal.of != "same slots" for goal in workload.goals)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=str)
def test_kernels_that_are_the_same_are_not_measured_twice(workload: Workload) -> None:
    for differ in (False, True):
        found = contestants(workload, QUICK, Path("a.gguf"), [], kernels_differ=differ)
        assert ("plait, portable" in {each.role for each in found}) == differ
        assert len({each.label for each in found}) == len(found)
