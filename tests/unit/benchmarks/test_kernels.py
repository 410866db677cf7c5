"""A bare loop in another process."""

import math
from pathlib import Path

from benchmarks.kernels import Kernels
from benchmarks.workloads.base import Load, Phase


def test_a_loop_that_ended_measures_nothing_and_tells_why() -> None:
    with Kernels(Path("there is no such model"), Load(1, (Phase(1, 4, 2),)), {}) as kernels:
        kernels.wait()
        assert math.isnan(kernels.seconds())
        assert math.isnan(kernels.seconds())
    assert kernels.trouble == "the bare loop ended with status 1"
