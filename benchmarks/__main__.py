"""`python -m benchmarks NAME [arguments]`; without a name, the names. `all` is what `make bench` runs.

`python -m benchmarks --help` says what there is, `python -m benchmarks NAME --help` what one does.
"""

import ast
import pkgutil
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import benchmarks
from benchmarks.workloads import WORKLOADS


def docstring(program: str) -> str:
    return ast.get_docstring(ast.parse(source_of(program))) or ""


def source_of(program: str) -> str:
    return Path(__file__).with_name(f"bench_{program}.py").read_text()


def contents(programs: Iterable[str]) -> Iterator[str]:
    """A line for each name that may be said."""
    titles = {name: docstring(name).splitlines()[0] for name in programs}
    titles |= {name: workload.title for name, workload in WORKLOADS.items()}
    for name, title in titles.items():
        yield f"  {name:<{max(map(len, titles))}}  {title}"


def speaks_for_itself(source: str) -> bool:
    """It has a parser of its own, which knows `--help`."""
    return "import argparse" in source


def main() -> None:
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    programs = sorted(name.removeprefix("bench_") for name in found if name.startswith("bench_"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    wants_help = sys.argv[2:3] in (["-h"], ["--help"])
    usage = f"usage: python -m benchmarks {{{','.join([*programs, *WORKLOADS])}}} [arguments]"
    if name in ("-h", "--help"):
        print(usage, "", *contents(programs), sep="\n")
    elif name in WORKLOADS and wants_help:
        print(f"{WORKLOADS[name].title}, on all servers. The arguments are those of `all`.")
    elif name in ("all", *WORKLOADS):
        sys.argv[0] = "benchmarks"
        runpy.run_module("benchmarks.bench_all", run_name="__main__")
    elif name in programs:
        if wants_help and not speaks_for_itself(source_of(name)):
            print(docstring(name))
            return
        sys.argv[:2] = [f"benchmarks {name}"]
        runpy.run_module(f"benchmarks.bench_{name}", run_name="__main__")
    else:
        sys.exit(usage)


if __name__ == "__main__":
    main()
