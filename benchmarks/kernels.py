"""What the kernels can do, asked of a program that does a workload's work in a bare loop: `kernels_program.py`."""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from benchmarks.workloads.base import Load


class Kernels:
    """A loop for one load, in a process of its own, as servers have one: its threads do not meet ours."""

    def __init__(self, model: Path, load: Load, variables: Mapping[str, str]) -> None:
        """`variables` of its environment say whose library it is."""
        sizes = str(load.n_streams), str(load.n_held + 1)
        command = [sys.executable, "-m", "benchmarks.kernels_program", str(model), *sizes]
        self.load = load
        env = {**os.environ, **variables}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.trouble = ""
        """Why it does not answer any more."""

    def wait(self) -> None:
        """Until it has its model: that takes the cores, too."""
        self._answer()

    def seconds(self) -> float:
        """NaN when the process has ended."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
            print(json.dumps(self.load), file=self.process.stdin, flush=True)
        line = self._answer()
        return float(line) if line else math.nan

    def _answer(self) -> str:
        """Empty when the process has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.trouble = f"the bare loop ended with status {self.process.wait()}"
        return line

    def __enter__(self) -> "Kernels":
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # what could not be told to one that had ended
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
