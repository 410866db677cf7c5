"""Everything, or one workload: `python -m benchmarks all` or `python -m benchmarks WORKLOAD`; `--help` tells options.

Writes RESULTS.md and plots beside this file, or where `--output` says, and one line of JSON last.
"""

import argparse
import json
import signal
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.bench_profile import profile
from benchmarks.bench_rivals import RIVALS, installed, kernels_differ
from benchmarks.client import Client
from benchmarks.clock import Clock
from benchmarks.compare import Measured, compare
from benchmarks.contestants import contestants
from benchmarks.kernels_program import speeds
from benchmarks.machine import this_machine
from benchmarks.random_model import random_model
from benchmarks.results import OfModel, Reasons, Results, flames_name, summary, write
from benchmarks.rivals.url import Url
from benchmarks.sizes import fitting
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.base import QUICK, Size, Workload

HERE = Path(__file__).parent
REASONS = HERE / "reasons.toml"
MINUTES = 18.0
FOR_FIRST_ROUND = 0.65
"""Of the time of a model: the rest is for other settings, and for more rounds of what is short."""


@dataclass(frozen=True)
class Part:
    """What is measured with one model."""

    model: Path
    weight: float
    """Of the time that is left, what one of its workloads gets beside the same one of another part."""
    is_first: bool = True
    """Where the time of a step goes is looked at with one model."""


def parts(options: argparse.Namespace) -> list[Part]:
    if options.model:
        return [Part(Path(options.model), 1.0)]
    if options.quick:
        return [Part(random_model("tiny", "q4_0"), 1.0)]
    return [Part(random_model("135m", "q4_0"), 1.0), Part(random_model("0.5b", "q4_0"), 1.2, is_first=False)]


def measure(part: Part, client: Client, options: argparse.Namespace, clock: Clock, results: Results) -> None:
    """Written down after each workload: what follows may fail, or be interrupted."""
    found = OfModel(part.model.stem, QUICK)
    results.models.append(found)
    if options.what == "all" or not options.quick:
        found.speeds = speeds(part.model)
    if options.what == "all" and part.is_first:
        found.steps = profile(part.model, client, options.output / flames_name(found.model))
    if not options.quick:
        weight = part.weight * sum(workload.weight for workload in asked_for(options))
        seconds = scaled_to_all(options) * FOR_FIRST_ROUND * clock.part(weight)
        n_servers = 4 if kernels_differ(results.builds) else 3  # that are needed for a workload, at most
        found.size = fitting(found.speeds, seconds, n_servers)
    for workload in asked_for(options):
        found.measured.append(one(part, found.size, workload, client, options, clock, results))
        results.minutes = clock.minutes
        if is_page(options):
            write(results, reasons(), options.output)


def scaled_to_all(options: argparse.Namespace) -> float:
    """All workloads' time beside that of those that are asked for."""
    return sum(each.weight for each in WORKLOADS.values()) / sum(each.weight for each in asked_for(options))


def reasons() -> Reasons:
    return msgspec.convert(tomllib.loads(REASONS.read_text()), dict[str, dict[str, dict[str, str]]])


def is_page(options: argparse.Namespace) -> bool:
    """One workload alone does not replace the page of all."""
    output: Path = options.output
    return options.what == "all" or output != HERE


def asked_for(options: argparse.Namespace) -> list[Workload]:
    return list(WORKLOADS.values()) if options.what == "all" else [WORKLOADS[options.what]]


def one(
    part: Part,
    size: Size,
    workload: Workload,
    client: Client,
    options: argparse.Namespace,
    clock: Clock,
    results: Results,
) -> Measured:
    differ = kernels_differ(results.builds)
    who = contestants(workload, size, part.model, options.url, kernels_differ=differ)
    measured = Measured(workload, size, who, differ)
    compare(measured, part.model, client, clock.begin(part.weight * workload.weight), options.rounds)
    return measured


def asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=["all", *WORKLOADS])
    parser.add_argument("--quick", action="store_true", help="a tiny model and few tokens: to see that all works")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="about how long, once all is installed")
    parser.add_argument("--rounds", type=int, default=5, help="at most so many of each workload")
    parser.add_argument("--model", help="a GGUF file instead of the random models, that are made of words")
    parser.add_argument("--as-is", action="store_true", help="without the rivals that are not installed yet")
    parser.add_argument("--url", action="append", default=[], help="one more server that runs already; may repeat")
    parser.add_argument("--output", type=Path, default=HERE, help="where RESULTS.md and plots/ go")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> Results:
    urls: list[str] = options.url
    results = Results(
        this_machine(),
        installed([*RIVALS, *map(Url, urls)], as_is=options.as_is),
        command(options),
        time.strftime("%Y-%m-%d"),
    )
    found, client = parts(options), Client()
    weight = sum(part.weight for part in found) * sum(workload.weight for workload in asked_for(options))
    clock = Clock(options.minutes, weight)
    for part in found:
        measure(part, client, options, clock, results)
    return results


def command(options: argparse.Namespace) -> str:
    minutes = [f"--minutes {options.minutes:g}"] if options.minutes != MINUTES else []
    given = [options.what, *(["--quick"] if options.quick else []), *minutes]
    return "make bench" if given == ["all"] else f"python -m benchmarks {' '.join(given)}"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))  # as ^C: all servers are ended
    options = asked(sys.argv[1:])
    print(json.dumps(summary(options.what, run(options))))


if __name__ == "__main__":
    main()
