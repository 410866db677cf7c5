"""How many processors kernels may use, and how many of them are worth using.

All threads of a kernel wait for the slowest: two on one core, or one that a container's quota stops, cost more than
they compute.
"""

import math
import os
from collections.abc import Set
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")


def n_processors() -> int:
    """Those that this process may run on, as the kernel counts: each hardware thread of a core is one."""
    return len(_processors())


def n_cores(topology: Path = TOPOLOGY, cgroups: Path = CGROUPS) -> int:
    """Cores that this process may use at once: each counts once, and a cgroup's quota of CPU time bounds them."""
    cores = {_siblings(topology / f"cpu{number}" / "topology") or str(number) for number in _processors()}
    return max(1, int(min(len(cores), _quota(cgroups, _own_group()))))


def _processors() -> Set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(topology: Path) -> str:
    """The processors that are threads of one core; empty where the kernel does not tell."""
    try:
        return (topology / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""


def _own_group() -> Path:
    """This process's cgroup, seen from the root of those of version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return Path()
    return next((Path(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")), Path())


def _quota(cgroups: Path, own: Path) -> float:
    """Processors' worth of time: the least that the group or one above it gets (`cpu.max` of cgroup v2: microseconds
    of a period, in microseconds)."""
    found = math.inf
    for group in (own, *own.parents):
        try:
            share, period = (cgroups / group / "cpu.max").read_text().split()
        except OSError:
            continue  # the root has none, nor has version 1
        if share != "max":
            found = min(found, int(share) / int(period))
    return found
