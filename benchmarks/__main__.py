"""`python -m benchmarks NAME [arguments]`; without a name, the names. `all` is what `make bench` runs.

`python -m benchmarks NAME --help` says what one does.
"""

import ast
import pkgutil
import runpy
import sys
from pathlib import Path

import benchmarks
from benchmarks.workloads import WORKLOADS


def speaks_for_itself(source: str) -> bool:
    """It has a parser of its own, which knows `--help`."""
    return "import argparse" in source


def main() -> None:
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    programs = sorted(name.removeprefix("bench_") for name in found if name.startswith("bench_"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    wants_help = sys.argv[2:3] in (["-h"], ["--help"])
    if name in WORKLOADS and wants_help:
        print(f"{WORKLOADS[name].title}, on all servers. The arguments are those of `all`.")
    elif name in ("all", *WORKLOADS):
        sys.argv[0] = "benchmarks"
        runpy.run_module("benchmarks.bench_all", run_name="__main__")
    elif name in programs:
        source = Path(__file__).with_name(f"bench_{name}.py").read_text()
        if wants_help and not speaks_for_itself(source):
            print(ast.get_docstring(ast.parse(source)))
            return
        sys.argv[:2] = [f"benchmarks {name}"]
        runpy.run_module(f"benchmarks.bench_{name}", run_name="__main__")
    else:
        sys.exit(f"usage: python -m benchmarks {{{','.join([*programs, *WORKLOADS])}}} [arguments]")


if __name__ == "__main__":
    main()
