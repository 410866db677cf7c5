"""`RESULTS.md`: all that a run found, as tables and plots. Why goals are missed people say, in `reasons.toml`."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compare import Measured
from benchmarks.contestants import OUR_ROLES, Contestant
from benchmarks.machine import Machine
from benchmarks.rivals.base import Build
from benchmarks.svg import Bar, bars
from benchmarks.verdicts import Verdict, middle, verdicts
from benchmarks.workloads.base import Figure, Size

Reasons = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Why a goal is missed, by model, workload, and the goal as `figure of whom`."""
UNKNOWN = "reason not found out yet"


@dataclass
class OfModel:
    """What was measured with one model."""

    model: str
    size: Size
    measured: list[Measured] = field(default_factory=list)
    speeds: list[Figure] = field(default_factory=list)
    """Of the kernels alone."""
    steps: list[Figure] = field(default_factory=list)
    """Where the time of a step goes."""


@dataclass
class Results:
    """One run of all."""

    machine: Machine
    builds: Mapping[str, Build | str]
    """By server; a text where there is none: why."""
    command: str
    began: str
    minutes: float = 0.0
    models: list[OfModel] = field(default_factory=list)


def page(results: Results, reasons: Reasons) -> str:
    """Markdown. `reasons` are for goals that are missed."""
    return "\n".join(_lines(results, reasons)) + "\n"


def _lines(results: Results, reasons: Reasons) -> Iterator[str]:
    machine = results.machine
    yield from ("# Results", "")
    yield f"Written by `{results.command}` on {results.began}, in {results.minutes:.0f} minutes."
    yield from ("", *METHOD)
    yield from ("", *table(["machine", ""], _machine(machine)))
    yield from ("", *table(["server", "version", "kernels"], [_build(*item) for item in results.builds.items()]))
    for of_model in results.models:
        yield from ("", f"## {of_model.model}", "", sizes(of_model.size), "", "### Goals", "")
        yield "Plait's figure divided by the other's, round by round: the median, and the least and the most. Where the"
        yield "kernels differ, the ratio on kernels like the rival's decides; where they do not, that column is empty."
        yield "A bare loop does the same work on the kernels that decide, without a server: all read, then all write."
        yield from ("", *_goals(of_model.measured, reasons.get(of_model.model, {})))
        for measured in of_model.measured:
            yield from _workload(of_model.model, measured)
        yield from _extra(
            "What the kernels can do", "Tokens per second of a bare loop, without a server.", of_model.speeds
        )
        steps = "16 writing streams in a loop of the engine's own; the gateway's is the CPU time of its process."
        yield from _extra("Where a step's time goes", steps, of_model.steps)
        if of_model.steps:
            yield from ("", f"![Flame graph]({flames_name(of_model.model)})")


METHOD = (
    "In each round all servers that take part have a turn, in an order that is shuffled anew. Figures are the medians",
    "of the rounds that their row counts; where there are several, the least and the most follow. All settings are",
    "tried in the first round, if there is time for them and for two more rounds of those that decide a goal; only",
    "these take part in later ones. After each turn Plait's prefix cache is emptied (`DELETE /admin/cache`), since it",
    "would be written to disk during the turn of another one; no round asks for what an earlier one asked for.",
)


def sizes(size: Size) -> str:
    """How much each workload is, which is less where a machine is slow."""
    return (
        f"Sizes in tokens: a user's own prompt {size.prompt}, an answer {size.output}, a system prompt {size.system}, "
        f"a long prompt {size.long} ({size.n_long} of them); {size.turns} turns in a conversation."
    )


def _machine(machine: Machine) -> list[list[str]]:
    return [
        ["CPU", machine.cpu],
        ["cores", str(machine.n_cores)],
        ["RAM", f"{machine.ram_gib:.0f} GiB"],
        ["kernel", machine.kernel],
        ["Python", machine.python],
    ]


def _build(name: str, build: Build | str) -> list[str]:
    if isinstance(build, str):
        return [name, build, ""]
    return [name, build.version, " ".join(build.instructions) or build.features]


def _goals(measured: Sequence[Measured], reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    heads = ["workload", "figure", "of", "goal", "as installed", "same kernels", "a bare loop", "verdict"]
    return table(heads, [_goal(verdict, reasons) for each in measured for verdict in verdicts(each)])


def _goal(verdict: Verdict, reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    goal = verdict.goal
    return [
        verdict.workload,
        goal.figure,
        verdict.beside,
        f"{goal.sign} {goal.bound:.3g}",
        spread(verdict.installed),
        spread(verdict.alike),
        spread(verdict.limit),
        _told_verdict(verdict, reasons.get(verdict.name, {})),
    ]


def _told_verdict(verdict: Verdict, reasons: Mapping[str, str]) -> str:
    failed = f"answers failed: {', '.join(verdict.failed)}" if verdict.failed else ""
    if verdict.is_met:
        return f"met ({verdict.remark})" if verdict.remark else "met"
    goal = verdict.goal
    found = reasons.get(f"{goal.figure} of {goal.of}" if goal.of else goal.figure, "")
    reach = f"a bare loop on the same kernels makes only {middle(verdict.limit):.3g}" if verdict.is_out_of_reach else ""
    return f"missed: {'; '.join(part for part in (failed, verdict.remark, reach, found) if part) or UNKNOWN}"


def _workload(model: str, measured: Measured) -> Iterator[str]:
    workload, limits = measured.workload, [limit for limit in measured.limits() if limit.seconds]
    yield from ("", f"### {workload.title}", "", f"![{workload.title}]({plot_name(model, measured)})", "")
    names = units(measured)
    kernels = ["of what its kernels can do"] if limits else []
    heads = ["server", *(name if name == unit else f"{name}, {unit}" for name, unit in names.items()), *kernels]
    rows = [_contestant(each, list(names), measured) for each in measured.contestants]
    yield from table([*heads, "rounds", ""], rows)
    if limits:
        rates = (f"{number(measured.rate(limit))} tokens/s ({limit.rival.name})" for limit in limits)
        yield from ("", f"A bare loop makes, of the same work: {'; '.join(rates)}.")
    for limit in measured.limits():
        if limit.trouble:
            yield from ("", f"What the kernels of {limit.rival.name} can do is not known: {limit.trouble}.")


def _contestant(each: Contestant, names: Sequence[str], measured: Measured) -> list[str]:
    share = [_share(each, measured)] if any(limit.seconds for limit in measured.limits()) else []
    spreads = [spread(each.values(name)) for name in names]
    return [each.label, *spreads, *share, str(len(each.rounds)), each.trouble]


def _share(each: Contestant, measured: Measured) -> str:
    """Of what its kernels can do; what those of a server at a URL are is not known."""
    if each.role == "other":
        return ""
    return number(each.median("tokens/s") / measured.rate(measured.limit_of(each)))


def _extra(title: str, says: str, figures: Sequence[Figure]) -> Iterator[str]:
    if figures:
        yield from ("", f"### {title}", "", says, "")
        yield from table(["", "", "unit"], [[figure.name, number(figure.value), figure.unit] for figure in figures])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; no cell breaks it."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [heads, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(heads), *lines[1:]]


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most when there are several."""
    if not values:
        return ""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def flames_name(model: str) -> str:
    return f"plots/{model}-flames.svg"


def plot_name(model: str, measured: Measured) -> str:
    return f"plots/{model}-{measured.workload.name}.svg"


def plot(measured: Measured) -> str:
    """The workload's figure, as bars."""
    workload = measured.workload
    found = [bar(each, workload.figure) for each in measured.contestants if each.values(workload.figure)]
    return bars(f"{workload.title}: {workload.figure}", units(measured).get(workload.figure, ""), found)


def units(measured: Measured) -> dict[str, str]:
    """Of all figures, by name."""
    every = (found for each in measured.contestants for found in each.rounds.values())
    return {figure.name: figure.unit for figures in every for figure in figures}


def bar(contestant: Contestant, name: str) -> Bar:
    values = contestant.values(name)
    return Bar(contestant.label, statistics.median(values), min(values), max(values), contestant.role in OUR_ROLES)


def write(results: Results, reasons: Reasons, folder: Path) -> None:
    """The page and its plots."""
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for of_model in results.models:
        for measured in of_model.measured:
            (folder / plot_name(of_model.model, measured)).write_text(plot(measured))
    (folder / "RESULTS.md").write_text(page(results, reasons))


def summary(benchmark: str, results: Results) -> dict[str, object]:
    """All medians and verdicts, for scripts."""
    return {
        "benchmark": benchmark,
        "minutes": round(results.minutes, 1),
        "models": {
            of_model.model: {
                measured.workload.name: {
                    "figures": {each.label: _medians(each) for each in measured.contestants},
                    "goals": [_told(verdict) for verdict in verdicts(measured)],
                }
                for measured in of_model.measured
            }
            for of_model in results.models
        },
    }


def _medians(contestant: Contestant) -> dict[str, float | None]:
    names = {figure.name for figures in contestant.rounds.values() for figure in figures}
    return {name: _plain(contestant.median(name)) for name in sorted(names)}


def _told(verdict: Verdict) -> dict[str, object]:
    goal = verdict.goal
    return {
        "figure": goal.figure,
        "of": verdict.beside,
        "goal": f"{goal.sign} {goal.bound:g}",
        "installed": _plain(middle(verdict.installed)),
        "alike": _plain(middle(verdict.alike)),
        "limit": _plain(middle(verdict.limit)),
        "met": verdict.is_met,
    }


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
