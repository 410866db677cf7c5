"""`python -m tests.process.disk.dying FOLDER MAX_BYTES`: writers that are killed, each a little later than the last.

The n-th child uses a copy of FOLDER/base/0123, FOLDER/n/0123, and ends itself with SIGKILL at its n-th step: right
before or right after a call of Python's into the operating system or SQLite. The last child meets no n-th step, and
ends well.
"""

import os
import shutil
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from tests.unit.disk.making import CHILD, ROOT, payload, record, shelf

STEPS = {"open", "write", "fsync", "replace", "unlink", "execute", "executemany", "close", "mkdir", "flock"}

THIRD = record([7, 8])
"""There is room for it when the leaf that was there before is evicted."""


def die_at(n: int) -> None:
    left = iter(range(n - 1, -1, -1))

    def watch(_frame: FrameType, event: str, called: Any) -> None:
        if event in ("c_call", "c_return") and called.__name__ in STEPS and not next(left):
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


def work(folder: Path, max_bytes: int) -> None:
    opened = shelf(folder, max_bytes)
    opened.use([ROOT.id])  # before there is something to write: so all children take the same steps
    for each in (CHILD, THIRD):
        opened.write(each, [payload(each.id)])
    opened.close(30.0)


def main(root: Path, max_bytes: int) -> int:
    """Returns how many children there were."""
    for n in count(1):
        folder = shutil.copytree(root / "base" / "0123", root / str(n) / "0123")
        if not (pid := os.fork()):
            die_at(n)
            work(folder, max_bytes)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            return n
    raise AssertionError


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]), int(sys.argv[2]))))
