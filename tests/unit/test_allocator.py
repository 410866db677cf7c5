"""All threads of a gateway allocate in one place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arenas import needs_glibc

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading
from plait.allocator import use_one_arena
from tests.arenas import n_arenas

if sys.argv[1] == "one":
    use_one_arena()
begun, end = threading.Barrier(4), threading.Event()
for _ in range(3):
    threading.Thread(target=lambda: (bytearray(50_000), begun.wait(), end.wait())).start()
begun.wait()
print(n_arenas("self"))
end.set()
"""


@needs_glibc
@pytest.mark.parametrize(("which", "n"), [("one", 0), ("own", 3)])
def test_threads_have_no_arena_of_their_own_once_that_is_said(which: str, n: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", PROGRAM, which]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=ROOT)
    assert int(told.stdout) == n
