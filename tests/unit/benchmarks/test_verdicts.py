"""Goals against figures, and how they are told."""

import math
from pathlib import Path
from xml.dom import minidom

import pytest

from benchmarks.compare import Measured
from benchmarks.contestants import Contestant, Role
from benchmarks.machine import this_machine
from benchmarks.results import OfModel, Results, number, page, plot, spread, table
from benchmarks.rivals.base import Setup
from benchmarks.rivals.plait import Plait
from benchmarks.verdicts import verdicts
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.base import FULL, Figure

SETUP = Setup(Path("a.gguf"))


def measured(*rates: tuple[Role, float], name: str = "unrelated", failed: Role | None = None) -> Measured:
    found = Measured(WORKLOADS[name], FULL, [])
    for role, rate in rates:
        figures = [Figure(found.workload.figure, rate, "tokens/s")]
        figures += [Figure("failed answers", 0.5, "share")] if role == failed else []
        found.contestants.append(Contestant(f"the {role} & co", role, Plait(), SETUP, rounds={0: figures}))
    return found


def test_the_best_rival_is_the_fastest_one() -> None:
    best = measured(("same slots", 10.0), ("default", 12.0), ("try", 11.0), ("plait", 99.0)).best_rival()
    assert best and best.role == "default"


def test_a_rival_whose_answers_failed_is_not_the_best_one() -> None:
    best = measured(("same slots", 10.0), ("default", 12.0), failed="default").best_rival()
    assert best and best.role == "same slots"


def test_the_best_memory_is_the_least() -> None:
    best = measured(("same slots", 10.0), ("default", 12.0), name="memory").best_rival()
    assert best and best.role == "same slots"


def test_kernels_that_are_alike_decide() -> None:
    first, _ = verdicts(measured(("plait", 20.0), ("plait, portable", 11.0), ("same slots", 10.0)))
    assert (first.installed, first.alike) == ((2.0,), (1.1,))
    assert not first.is_met


def test_without_them_those_that_are_installed_decide() -> None:
    first, _ = verdicts(measured(("plait", 20.0), ("same slots", 10.0)))
    assert not first.alike
    assert first.is_met


def test_what_was_not_measured_is_not_met() -> None:
    first, _ = verdicts(measured(("plait", 20.0)))
    assert not first.is_met
    assert first.remark == "nothing to compare with"


def test_the_kernels_limit_counts_the_tokens_that_were_written() -> None:
    found = measured(("plait", 100.0), ("same slots", 90.0))
    found.limit.seconds = {0: 4.0, 1: 8.0, 2: 16.0}
    assert found.rate(found.limit) == 16 * FULL.output / 8


def test_what_a_bare_loop_makes_is_told_beside_a_goal_on_the_kernels_that_decide() -> None:
    found = measured(("plait", 20.0), ("plait, portable", 11.0), ("same slots", 8.0))
    found.kernels_differ = True
    found.limit.seconds, found.portable_limit.seconds = {0: 16 * FULL.output / 25}, {0: 16 * FULL.output / 10}
    first, second = verdicts(found)
    assert first.limit == pytest.approx([10 / 8])
    assert [*second.installed, *second.alike] == pytest.approx([20 / 25, 11 / 10])


def test_a_goal_that_a_bare_loop_misses_too_is_told_so() -> None:
    found = measured(("plait", 10.5), ("same slots", 10.0))
    results = Results(this_machine(), {}, "make bench", "today", models=[OfModel("a", FULL, [found])])
    found.limit.seconds = {0: 16 * FULL.output / 11}
    assert "| missed: a bare loop on the same kernels makes only 1.1 |" in page(results, {})
    found.limit.seconds = {0: 16 * FULL.output / 12}
    assert "makes only" not in page(results, {})


def test_each_is_held_against_the_limit_of_its_own_kernels() -> None:
    found = measured(("plait", 20.0), ("plait, portable", 11.0), ("same slots", 8.0), ("slow", 1.0))
    ours, portable, rival, slow = found.contestants
    assert {found.limit_of(each).rival.name for each in found.contestants} == {"plait"}
    found.kernels_differ = True
    assert found.limit_of(portable) is found.limit_of(rival) is found.portable_limit
    assert found.limit_of(ours) is found.limit_of(slow) is found.limit


def test_a_ratio_is_of_one_round_and_the_verdict_of_their_median() -> None:
    found = measured(("plait", 20.0), ("same slots", 10.0))
    ours, other = found.contestants
    for round, (a, b) in enumerate([(30.0, 20.0), (11.0, 10.0)], 1):
        ours.rounds[round], other.rounds[round] = ([Figure("tokens/s", value, "tokens/s")] for value in (a, b))
    ours.rounds[3] = [Figure("tokens/s", 99.0, "tokens/s")]
    first, _ = verdicts(found)
    assert first.installed == (2.0, 1.5, 1.1)
    assert first.is_met


@pytest.mark.parametrize("failed", ["plait", "same slots"])
def test_nothing_is_met_by_answers_that_failed(failed: Role) -> None:
    first, _ = verdicts(measured(("plait", 20.0), ("same slots", 10.0), failed=failed))
    assert not first.is_met
    assert first.failed == (f"the {failed} & co",)


def test_kernels_that_differ_and_were_not_made_alike_are_told() -> None:
    found = measured(("plait", 20.0), ("same slots", 10.0))
    found.kernels_differ = True
    assert "kernels differ" in verdicts(found)[0].remark


def test_a_missed_goal_has_its_reason_or_says_that_there_is_none() -> None:
    of_model = OfModel("a", FULL, [measured(("plait", 9.0), ("same slots", 10.0))])
    results = Results(this_machine(), {}, "make bench", "today", models=[of_model])
    assert "| missed: reason not found out yet |" in page(results, {})
    assert "| missed: it rains |" in page(results, {"a": {"unrelated": {"tokens/s of best": "it rains"}}})
    assert "it rains" not in page(results, {"b": {"unrelated": {"tokens/s of best": "it rains"}}})


def test_a_cell_does_not_break_its_table() -> None:
    assert table(["a", "b"], [["x|y", "1\n2"]]) == ["| a | b |", "|---|---|", "| x\\|y | 1 2 |"]


def test_a_spread_has_the_least_and_the_most() -> None:
    assert spread([3.0, 1.0, 2000.0]) == "3 (1 to 2,000)"
    assert (spread([]), spread([2.5]), number(math.nan)) == ("", "2.5", "")


def test_a_plot_is_well_formed() -> None:
    drawn = minidom.parseString(plot(measured(("plait", 20.0), ("same slots", 10.0))))
    assert len(drawn.getElementsByTagName("rect")) == 3
