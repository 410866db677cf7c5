"""How many places a process has for the memory of threads, besides the one for all; as glibc lays them out."""

import platform
from pathlib import Path

import pytest

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have other arenas, or none"
)


def n_arenas(pid: int | str) -> int:
    """One of these is 64 MiB of addresses, most of which cannot be used yet. Linux tells them."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    areas = [line.split()[0].split("-") for line in lines if " ---p " in line]
    return sum(int(end, 16) - int(begin, 16) > 32 << 20 for begin, end in areas)
