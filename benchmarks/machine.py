"""What the figures were measured on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    cpu: str
    n_cores: int
    ram_gib: float
    kernel: str
    python: str


def this_machine() -> Machine:
    return Machine(
        cpu=cpu(Path("/proc/cpuinfo").read_text()),
        n_cores=len(os.sched_getaffinity(0)),
        ram_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {version(platform.release())}",
        python=platform.python_version(),
    )


def cpu(told: str) -> str:
    """The model, and what of it decides which kernels it can run."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told.splitlines())}
    flags = fields.get("flags", "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{fields.get('model name', platform.machine())} ({', '.join(wide) or 'no wide vectors'})"


def version(release: str) -> str:
    """A kernel's number, without what its builder called it."""
    return release.partition("-")[0]
