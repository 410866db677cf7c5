"""A process that shuts itself in as a worker does, and then tries to get out: `python -m tests.process.shut_in MODEL`.

Writes one JSON object: what it claims to have given up, and how each attempt ended.
"""

import ctypes
import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct, json

from plait.config import Engine
from plait.protocol import Load, Protection
from plait.worker import sandbox

PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVILEGES = 3, 39


class Outcome(Struct):
    """`…_thread`: by attempt, the name of its error, or "done"."""

    claimed: tuple[Protection, ...]
    main_thread: dict[str, str]
    later_thread: dict[str, str]
    most_core_bytes: int
    is_dumpable: bool
    may_gain_privileges: bool


def attempts(model: Path, early: socket.socket) -> dict[str, Callable[[], object]]:
    """What is tried, of files beside the model. `early` is a socket from before."""
    other, victim, new = (model.with_name(name) for name in ("other", "victim", "new"))
    return {
        "connect": lambda: early.connect(("127.0.0.1", 9)),
        "bind": lambda: early.bind(("127.0.0.1", 0)),
        "TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "Unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
        "create": new.touch,
        "append": lambda: victim.open("ab").close(),
        "truncate": lambda: os.truncate(victim, 0),
        "remove": victim.unlink,
        "make a folder": new.mkdir,
        "link": lambda: new.hardlink_to(other),
        "chmod": lambda: victim.chmod(0o777),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "other file": other.read_bytes,
        "list folder": lambda: os.listdir(model.parent),
        "parent's environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
        "other file's presence": lambda: os.lstat(other),
        "other file's absence": lambda: os.lstat(model.with_name("none")),
        "model": model.read_bytes,
        "Python": Path(os.__file__).read_bytes,
        "processors": Path("/sys/devices/system/cpu/online").read_bytes,
        "memory": Path("/proc/meminfo").read_bytes,
        "process": Path("/proc/self/status").read_bytes,
    }


def try_all(model: Path, early: socket.socket) -> dict[str, str]:
    return {name: ending(attempt) for name, attempt in attempts(model, early).items()}


def ending(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main(model: Path) -> Outcome:
    prctl = ctypes.CDLL(None).prctl
    with socket.socket() as early:
        claimed = sandbox.enter(Load(str(model), Engine(), "info"), None)
        return Outcome(
            claimed=claimed,
            later_thread=ThreadPoolExecutor(1).submit(try_all, model, early).result(),
            main_thread=try_all(model, early),
            most_core_bytes=resource.getrlimit(resource.RLIMIT_CORE)[1],
            is_dumpable=bool(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)),
            may_gain_privileges=not prctl(PR_GET_NO_NEW_PRIVILEGES, 0, 0, 0, 0),
        )


if __name__ == "__main__":
    sys.stdout.buffer.write(json.encode(main(Path(sys.argv[1]))))
