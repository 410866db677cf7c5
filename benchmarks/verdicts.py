"""Goals held against what was measured."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.compare import Limit, Measured
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
    limit: tuple[float, ...]
    """What a bare loop, on the kernels that decide, reaches of the goal. Empty: there is none."""
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

    @property
    def is_out_of_reach(self) -> bool:
        """Even of a loop that is no server, on the kernels that decide, if that is the faster of the two."""
        limit = middle(self.limit)
        return self.goal.sign == ">=" and middle(self.deciding) <= limit < self.goal.bound


def middle(ratios: tuple[float, ...]) -> float:
    """NaN: there are none."""
    return statistics.median(ratios) if ratios else math.nan


def verdicts(measured: Measured) -> list[Verdict]:
    return [verdict(measured, goal) for goal in measured.workload.goals]


def verdict(measured: Measured, goal: Goal) -> Verdict:
    ours, portable, other = measured.of_role("plait"), measured.of_role("plait, portable"), beside(measured, goal)
    installed = ratios(ours, goal, divisors(measured, goal, measured.limit))
    alike = ratios(portable, goal, divisors(measured, goal, measured.portable_limit)) if goal.of else ()
    deciding = portable if alike else ours
    return Verdict(
        workload=measured.workload.title,
        name=measured.workload.name,
        goal=goal,
        beside=other.label if other else goal.of,
        installed=installed,
        alike=alike,
        limit=limits(measured, goal, measured.portable_limit if alike else measured.limit),
        failed=tuple(each.label for each in (deciding, other) if each and each.has_failed),
        remark=remark(measured, goal, ours, installed, alike),
    )


def beside(measured: Measured, goal: Goal) -> Contestant | None:
    if goal.of == "best":
        return measured.best_rival()
    return measured.of_role("same slots") if goal.of == "same slots" else None


def divisors(measured: Measured, goal: Goal, limit: Limit) -> dict[int, float]:
    """Of what a goal is a ratio, by round."""
    if goal.of == "kernels":
        return measured.rates(limit)
    other = beside(measured, goal)
    return other.by_round(goal.figure) if other else {}


def ratios(ours: Contestant | None, goal: Goal, divisors: Mapping[int, float]) -> tuple[float, ...]:
    """Of each round by itself: what drifts between rounds is in neither."""
    values = ours.by_round(goal.figure) if ours else {}
    return by_round(values, divisors) if goal.of else tuple(values.values())


def limits(measured: Measured, goal: Goal, limit: Limit) -> tuple[float, ...]:
    """Those of tokens per second beside a rival's."""
    is_comparable = goal.figure == "tokens/s" and goal.of in ("best", "same slots")
    return by_round(measured.rates(limit), divisors(measured, goal, limit)) if is_comparable else ()


def by_round(values: Mapping[int, float], divisors: Mapping[int, float]) -> tuple[float, ...]:
    return tuple(value / divisors[round] for round, value in values.items() if divisors.get(round))


def remark(
    measured: Measured, goal: Goal, ours: Contestant | None, installed: tuple[float, ...], alike: tuple[float, ...]
) -> str:
    """Why a ratio is not there, or not to be believed."""
    if not ours:
        return "Plait has no figures"
    if not installed:
        return "nothing to compare with"
    if measured.kernels_differ and not alike and goal.of:
        if goal.of == "kernels":
            return "not measured on kernels like the rival's"
        return "kernels differ, and Plait was not measured on ones like the rival's"
    return ""
