"""All threads allocate in one place."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from pathlib import Path
from plait.allocator import use_one_arena

if sys.argv[1] == "one":
    use_one_arena()
begun, end = threading.Barrier(4), threading.Event()
for _ in range(3):
    threading.Thread(target=lambda: (bytearray(50_000), begun.wait(), end.wait())).start()
begun.wait()
areas = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if " ---p " in line]
print(sum(int(end, 16) - int(begin, 16) > 32 << 20 for begin, end in areas))
end.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other options, or none")
@pytest.mark.parametrize(("which", "n"), [("one", 0), ("own", 3)])
def test_threads_have_no_arena_of_their_own_once_that_is_said(which: str, n: int) -> None:
    """One of these is 64 MiB of addresses, most of which cannot be used yet."""
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    told = subprocess.run([sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, check=True, env=env)
    assert int(told.stdout) == n
