"""What the kernel tells of processes that it ended because memory ran out: how many, and not which."""

import signal
from pathlib import Path

COUNTERS = Path("/proc/vmstat")
"""Of the machine, and of all containers on it. Linux's; elsewhere nothing is known."""


def n_kills(counters: Path = COUNTERS) -> int:
    """How many since the machine began."""
    try:
        lines = counters.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def death(code: int, n_before: int, n_after: int) -> str:
    """A process's exit code as people say it, where the kernel had ended so many when it began and when it died."""
    if code == -signal.SIGKILL and n_after > n_before:
        return "oom: memory ran out, and the kernel ended it"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
