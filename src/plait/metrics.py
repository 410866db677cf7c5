"""Numbers that only grow, and how Prometheus reads them. Knows nothing of fleets; the gateway's admin page joins both.

Each number belongs to who counts it: a `Tally` to the fleet that serves the model. Nothing here is global.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from plait.protocol import Done, Stats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)


@dataclass(slots=True, eq=False)
class Histogram:
    """How many values fell between neighbours of `bounds`, and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    """One more than `bounds`: the last is for what passes them all."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        names = [*map(str, self.bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self.counts), strict=True)), self.sum)


@dataclass(slots=True, eq=False)
class Tally:
    """What one model has done since it was first served, on all its workers, the dead ones too."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Requests by how they ended: "ok", "cancelled" or an error's code."""
    n_resumed: int = 0
    """Requests that another worker had to go on with, once for each time."""
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    choice_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    step_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    step_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))

    def count_choice(self, done: Done) -> None:
        self.first_token_seconds.observe(done.first_token_seconds)
        self.choice_seconds.observe(done.seconds)

    def count_steps(self, stats: Stats) -> None:
        for seconds in stats.step_seconds:
            self.step_seconds.observe(seconds)
        for n_rows in stats.step_rows:
            self.step_rows.observe(n_rows)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def render(families: Iterable[Metric]) -> bytes:
    """Prometheus' text format."""
    return generate_latest(_Families(families))
