"""`python -m benchmarks NAME [arguments]`; without a name, the names. `all` is what `make bench` runs."""

import pkgutil
import runpy
import sys

import benchmarks
from benchmarks.workloads import WORKLOADS


def main() -> None:
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    programs = sorted(name.removeprefix("bench_") for name in found if name.startswith("bench_"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("all", *WORKLOADS):
        sys.argv[0] = "benchmarks"
        runpy.run_module("benchmarks.bench_all", run_name="__main__")
    elif name in programs:
        sys.argv[:2] = [f"benchmarks {name}"]
        runpy.run_module(f"benchmarks.bench_{name}", run_name="__main__")
    else:
        sys.exit(f"usage: python -m benchmarks {{{','.join([*programs, *WORKLOADS])}}} [arguments]")


if __name__ == "__main__":
    main()
