"""Goals held against what was measured."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.compare import Measured
from benchmarks.contestants import Contestant
from benchmarks.workloads.base import Goal


@dataclass(frozen=True)
class Verdict:
    """A goal, and how far it was reached by Plait as installed, and on kernels like the rival's: a ratio for each round
    in which both took part."""

    workload: str
    name: str
    """The workload's short one."""
    goal: Goal
    beside: str
    """Whom the goal is a ratio of."""
    installed: tuple[float, ...]
    alike: tuple[float, ...]
    """Empty: not measured."""
    failed: tuple[str, ...]
    """Whose answers failed, of the two that decide."""
    remark: str

    @property
    def deciding(self) -> tuple[float, ...]:
        """Where kernels differ, those that are alike count: schedulers are compared, not compilers."""
        return self.alike or self.installed

    @property
    def is_met(self) -> bool:
        """What was not measured, or not answered, is not met."""
        if self.failed or not self.deciding:
            return False
        value = statistics.median(self.deciding)
        return value >= self.goal.bound if self.goal.sign == ">=" else value <= self.goal.bound


def middle(ratios: tuple[float, ...]) -> float:
    """NaN: there are none."""
    return statistics.median(ratios) if ratios else math.nan


def verdicts(measured: Measured) -> list[Verdict]:
    return [verdict(measured, goal) for goal in measured.workload.goals]


def verdict(measured: Measured, goal: Goal) -> Verdict:
    ours, portable, other = measured.of_role("plait"), measured.of_role("plait, portable"), beside(measured, goal)
    divisors = measured.kernels_rates() if goal.of == "kernels" else other.by_round(goal.figure) if other else {}
    installed = ratios(ours, goal, divisors)
    alike = ratios(portable, goal, divisors) if goal.of in ("best", "same slots") else ()
    deciding = portable if alike else ours
    return Verdict(
        workload=measured.workload.title,
        name=measured.workload.name,
        goal=goal,
        beside=other.label if other else goal.of,
        installed=installed,
        alike=alike,
        failed=tuple(each.label for each in (deciding, other) if each and each.has_failed),
        remark=remark(measured, goal, ours, installed, alike),
    )


def beside(measured: Measured, goal: Goal) -> Contestant | None:
    if goal.of == "best":
        return measured.best_rival()
    return measured.of_role("same slots") if goal.of == "same slots" else None


def ratios(ours: Contestant | None, goal: Goal, divisors: Mapping[int, float]) -> tuple[float, ...]:
    """Of each round by itself: what drifts between rounds is in neither."""
    values = ours.by_round(goal.figure) if ours else {}
    if not goal.of:
        return tuple(values.values())
    return tuple(value / divisors[round] for round, value in values.items() if divisors.get(round))


def remark(
    measured: Measured, goal: Goal, ours: Contestant | None, installed: tuple[float, ...], alike: tuple[float, ...]
) -> str:
    """Why a ratio is not there, or not to be believed."""
    if not ours:
        return "Plait has no figures"
    if not installed:
        return "nothing to compare with"
    if measured.kernels_differ and not alike and goal.of in ("best", "same slots"):
        return "kernels differ, and Plait was not measured on ones like the rival's"
    return ""
