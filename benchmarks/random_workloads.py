"""Random work for an engine on the demo model, by seeds: what a process does of it that shares it with others."""

import sys
from collections.abc import Sequence
from importlib.resources import files

from msgspec import structs

from plait import config
from plait.llama.model import Model
from plait.llama.probe import probe
from plait.llama.verdict import judge
from tests.native.reproducible import Bench, run_workload

PATIENCE = 600.0
"""Seconds that a probe may take."""


def differing(seeds: Sequence[int]) -> list[int]:
    """Those of them whose workload has other texts than its requests have alone."""
    settings = config.Engine(threads=1, batch_size=512, ubatch_size=256)
    found = []
    with Model(str(files("plait.demo") / "plait-demo.gguf"), settings) as model:
        verdict = judge(probe(model, settings, n_slots=5, seconds=PATIENCE), 5)
        bench = Bench(model, settings, structs.replace(verdict, pad_to=max(2, verdict.pad_to)))
        for seed in seeds:
            try:
                run_workload(bench, seed)
                print(f"workload {seed}: as alone", file=sys.stderr)
            except AssertionError:
                found.append(seed)
                print(f"workload {seed}: other texts than alone", file=sys.stderr)
    return found
