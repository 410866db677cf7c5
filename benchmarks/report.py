"""How every benchmark speaks: a table for people, and one line of JSON last for scripts."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure. `goal` reads as `<= 1.1`; no goal, no verdict."""

    name: str
    value: float
    unit: str
    goal: str = ""

    @property
    def is_met(self) -> bool | None:
        if not self.goal:
            return None
        sign, number = self.goal.split()
        return self.value <= float(number) if sign == "<=" else self.value >= float(number)


def as_they_come(rows: Iterable[Row]) -> list[Row]:
    """All of them, each told when it is known: what follows may take long, or fail."""
    known = []
    for row in rows:
        print(f"{row.name}: {row.value:.4g} {row.unit}", file=sys.stderr, flush=True)
        known.append(row)
    return known


def show(title: str, rows: Sequence[Row]) -> None:
    """Print both. A goal that was missed ends the program with status 1."""
    table = Table(title=title)
    for heading in ("figure", "value", "unit", "goal", ""):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for row in rows:
        verdict = {None: "", True: "met", False: "missed"}[row.is_met]
        table.add_row(row.name, f"{row.value:.4g}", row.unit, row.goal, verdict)
    Console().print(table)
    print(json.dumps({"benchmark": title, "rows": [asdict(row) | {"met": row.is_met} for row in rows]}))
    if any(row.is_met is False for row in rows):
        sys.exit(1)


def interleaved(n: int, *runs: Callable[[], float]) -> list[float]:
    """Each run's median over `n` rounds in which they take turns, so that drift of the machine hits all alike."""
    rounds = [[run() for run in runs] for _ in range(n)]
    return [statistics.median(values) for values in zip(*rounds, strict=True)]
