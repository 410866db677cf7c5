"""A server in a process of its own: started, waited for, watched and ended."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.rivals.base import Counted, NotThere

READY_WITHIN = 120.0
GONE_WITHIN = 15.0


@dataclass(frozen=True)
class Metrics:
    """What the counters are called that a server has at `/metrics`."""

    prompt_tokens: str
    output_tokens: str


@dataclass
class ServerProcess:
    """A `Server` that is a child of ours."""

    pid: int
    address: tuple[str, int]
    metrics: Metrics | None = None

    @property
    def memory(self) -> int:
        return sum(resident(pid) for pid in family(self.pid))

    def counted(self) -> Counted | None:
        if not self.metrics:
            return None
        page = get(self.address, "/metrics")
        return Counted(total(page, self.metrics.prompt_tokens), total(page, self.metrics.output_tokens))

    def rest(self) -> None: ...

    def keep(self, n_slots: int) -> None: ...

    def recall(self, n_slots: int) -> None: ...


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator["Child"]:
    """A process whose standard streams go to a file, in a group of its own that is ended with it."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            yield Child(process, log)
        finally:
            end(process)


@dataclass
class Child:
    """A started process, and what it said so far."""

    process: subprocess.Popen[bytes]
    log: IO[str]

    def said(self) -> str:
        return Path(self.log.name).read_text(errors="replace")

    def wait_for_words(self, pattern: str) -> re.Match[str]:
        """What it says that matches. Raises `NotThere` when it ends before, or takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while not (found := re.search(pattern, self.said())):
            self.check(deadline)
        return found

    def wait_for_page(self, address: tuple[str, int], path: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not answers(address, path):
            self.check(deadline)

    def check(self, deadline: float) -> None:
        if self.process.poll() is not None or time.monotonic() > deadline:
            raise NotThere(f"{self.process.args!r} does not start: {self.said()[-500:]}")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to go, and after a while see to it. The whole group is killed: nothing may be left that computes."""
    process.terminate()
    try:
        process.wait(GONE_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def get(address: tuple[str, int], path: str) -> str:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def answers(address: tuple[str, int], path: str) -> bool:
    try:
        get(address, path)
    except (urllib.error.URLError, OSError):
        return False
    return True


def total(page: str, counter: str) -> int:
    """The sum of a Prometheus counter over its labels. Raises `KeyError` when it is not there."""
    values = re.findall(rf"^{re.escape(counter)}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE)
    if not values:
        raise KeyError(counter)
    return round(sum(map(float, values)))


def family(pid: int) -> Iterator[int]:
    """A process and all that come from it."""
    yield pid
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child_pid in tasks.read_text().split():
            yield from family(int(child_pid))


def resident(pid: int) -> int:
    """Bytes in RAM; of pages that several processes share, each has its part. Who may not look into a process is told
    only what it has, shared or not."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        told = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^(?:Pss|VmRSS):\s+(\d+) kB$", told, re.MULTILINE)
    assert found, told
    return int(found[1]) * 1024
