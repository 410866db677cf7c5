"""Real servers, each `plait` as a user starts it, in a process of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.waiting import SECONDS, until

STARTS_WITHIN = 60.0
ANY_PORT = 0


@dataclass
class Server:
    """A running `plait serve`."""

    url: str
    process: subprocess.Popen[bytes]
    key: str = ""

    def get(self, path: str, key: str | None = None) -> httpx2.Response:
        key = self.key if key is None else key
        return httpx2.get(self.url + path, headers={"x-api-key": key} if key else {}, timeout=30)

    def answers(self, path: str) -> bool:
        """Whether a GET there is a 200; not while nobody listens."""
        assert self.process.poll() is None, "the server ended"
        try:
            return self.get(path).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def is_ready(self) -> bool:
        return self.answers("/readyz")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that bear these labels."""
        samples = (line.rpartition(" ") for line in self.get("/metrics").text.splitlines() if not line.startswith("#"))
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        values = [
            float(value)
            for sample, _, value in samples
            if sample.partition("{")[0] == name and all(each in sample for each in wanted)
        ]
        assert values, f"there is no metric {name}"
        return sum(values)


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def free_ports(n: int) -> list[int]:
    """So many different ones."""
    with contextlib.ExitStack() as probes:
        found = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [probe.getsockname()[1] for probe in found]


@contextlib.contextmanager
def serving(*arguments: str, key: str = "", unix_socket: Path | None = None) -> Iterator[Server]:
    """`plait serve` with these arguments, ready."""
    command = ["serve", "--port", "0", "--log-level", "warning", *arguments]
    if key:
        command += ["--api-key", key]
    if unix_socket:
        command += ["--listen", f"unix://{unix_socket}", "--listen", "tcp://127.0.0.1:0"]
    with running(command, ANY_PORT, key=key) as server:
        yield server


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, *, key: str = "", ready: str = "/readyz", env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Any `plait` command that listens on `port`, from when `ready` answers 200; SIGTERM must end it cleanly.
    `ANY_PORT`: where it says that it listens.

    It has a cache of its own, unless `env` names one, and does not look if its model is reproducible unless asked.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"XDG_CACHE_HOME": cache, "PLAIT_PROBE_SECONDS": "0"} | dict(env or {})
        stdout = subprocess.PIPE if port == ANY_PORT else subprocess.DEVNULL
        process = subprocess.Popen([sys.executable, "-m", "plait", *command], stdout=stdout, env=environment)
        try:
            server = Server(f"http://127.0.0.1:{port or told_port(process)}", process, key)
            until(lambda: server.answers(ready), STARTS_WITHIN)
            yield server
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
            process.communicate()


def told_port(process: subprocess.Popen[bytes]) -> int:
    """The one that the start-up block names; whoever looks for a free one beforehand may lose it to others."""
    assert process.stdout
    for line in process.stdout:
        if found := re.fullmatch(rb"address +http://127\.0\.0\.1:(\d+)\s*", line):
            return int(found[1])
    raise AssertionError("the server ended")
