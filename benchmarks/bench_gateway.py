"""The gateway's own cost: streamed chunks per second of its CPU time, and what it adds to a short request.

A real server on real sockets, on a core of its own, with a worker that computes nothing and a client that only counts.
A worker that takes its time between steps has each chunk written by itself; one that takes none shows what the gateway
does when it falls behind: it joins what is due.
"""

import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Row, show
from tests.fakes.gguf_file import write_gguf

N_STREAMS = 32
N_CHUNKS = 1000
"""Of each stream."""
STEP_SECONDS = 0.002
N_SHORT = 300
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def server(step_seconds: float) -> Iterator[tuple[int, int]]:
    """The process id and the port of a server whose workers take so long for a step."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_gguf(Path(folder) / "tiny.gguf")
        settings = {"model": [str(model)], "port": 0, "log_level": "error", "max_queue": 1000}
        command = [sys.executable, "-m", "tests.fakes.server", json.dumps(settings), str(step_seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            (address,), _ = json.loads(process.stdout.readline())
            pin(process.pid)
            yield process.pid, int(address.rpartition(":")[2])
            process.terminate()


def pin(gateway: int) -> None:
    """Give the gateway the first core that we may use, and leave the others to everybody else."""
    first, *others = sorted(os.sched_getaffinity(0))
    workers = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    os.sched_setaffinity(gateway, {first})
    for pid in (0, *map(int, workers)):
        os.sched_setaffinity(pid, others or {first})


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def ask(port: int, prompt: str, max_tokens: int) -> socket.socket:
    """A request that is sent, and whose answer is still to be read."""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    return client


def read_all(clients: list[socket.socket]) -> list[bytes]:
    """Each client's whole answer."""
    answers: list[list[bytes]] = [[] for _ in clients]
    with selectors.DefaultSelector() as selector:
        for client, answer in zip(clients, answers, strict=True):
            selector.register(client, selectors.EVENT_READ, answer)
        while selector.get_map():
            for key, _ in selector.select():
                if data := os.read(key.fd, 1 << 16):
                    key.data.append(data)
                else:
                    selector.unregister(key.fd)
    for client in clients:
        client.close()
    return [b"".join(answer) for answer in answers]


def streaming(pid: int, port: int, n_streams: int) -> tuple[float, float]:
    """Chunks per second, and microseconds of the gateway's CPU per chunk, with so many streams at once."""
    cpu, began = cpu_seconds(pid), time.perf_counter()
    answers = read_all([ask(port, "count", N_CHUNKS) for _ in range(n_streams)])
    seconds = time.perf_counter() - began
    n_chunks = sum(len(re.findall(rb"data: \{", answer)) for answer in answers)
    assert n_chunks == n_streams * (N_CHUNKS + 1), f"{n_chunks} chunks"
    return n_chunks / seconds, (cpu_seconds(pid) - cpu) / n_chunks * 1e6


def short(port: int) -> float:
    """Seconds of a request whose answer is one word."""
    began = time.perf_counter()
    read_all([ask(port, "echo hi", 1)])
    return time.perf_counter() - began


def rows_of(step_seconds: float) -> Iterator[Row]:
    name = f"{step_seconds * 1e3:g} ms steps" if step_seconds else "no pause between steps"
    with server(step_seconds) as (pid, port):
        streaming(pid, port, N_STREAMS)
        for n_streams in (8, N_STREAMS):
            rate, cpu = streaming(pid, port, n_streams)
            yield Row(f"{n_streams} streams, {name}, by CPU time", 1e6 / cpu, "chunks/CPU s", ">= 15000")
            yield Row(f"{n_streams} streams, {name}, by the clock", rate, "chunks/s")
        yield Row(f"one word, {name}", statistics.median(short(port) for _ in range(N_SHORT)) * 1e3, "ms")


def main() -> None:
    show("gateway", [*rows_of(STEP_SECONDS), *rows_of(0.0)])


if __name__ == "__main__":
    main()
