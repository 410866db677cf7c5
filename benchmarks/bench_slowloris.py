"""Clients that hold connections and do nothing with them: what another client feels of that.

`python -m benchmarks slowloris [REQUESTS]`: a gateway on a core of its own, and a worker that computes nothing. One
client asks for a word, REQUESTS (400) times in a row, and notes when the first of the answer comes: by turns alone, and
beside 500 clients that send a byte of a head now and then (and come again when they are thrown out) and 200 whose
streams have fallen silent.
"""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench_gateway import STEP_SECONDS, ask, read_all, server
from benchmarks.report import Row, show

N_LORISES = 500
N_IDLE = 200
DRIP_SECONDS = 2.0
SETTLE_SECONDS = 0.5
"""In which the gateway notices who is gone."""
N_ROUNDS = 5
N_FILES = 4096
NICENESS = 10
"""The crowd and who measures share cores; the crowd waits."""


async def drip(port: int, number: int, has_come: asyncio.Semaphore) -> None:
    """Sends a head that does not end, again and again; each client at a moment of its own."""
    await asyncio.sleep(DRIP_SECONDS * number / N_LORISES)
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        has_come.release()
        writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ")
        refusal = asyncio.create_task(reader.read())
        while not refusal.done():
            writer.write(b"y")
            await asyncio.wait([refusal], timeout=DRIP_SECONDS)
        writer.close()


async def idle(port: int, has_come: asyncio.Semaphore) -> None:
    """Listens to a stream that says one word."""
    reader, writer = await asyncio.open_connection(sock=ask(port, "hang", 1))
    await reader.readuntil(b"data: ")
    has_come.release()
    await reader.read()
    writer.close()


async def crowd(port: int) -> None:
    """All of them, who stay until this process is killed. Says when they are there."""
    has_come = asyncio.Semaphore(0)
    clients = [asyncio.create_task(drip(port, number, has_come)) for number in range(N_LORISES)]
    clients += [asyncio.create_task(idle(port, has_come)) for _ in range(N_IDLE)]
    for _ in clients:
        await has_come.acquire()
    print("all are there", flush=True)
    await asyncio.gather(*clients)


@contextmanager
def crowded(port: int) -> Iterator[None]:
    """For the time of the block they are there."""
    command = [sys.executable, "-m", "benchmarks.bench_slowloris", "crowd", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            if not process.stdout.readline():
                raise RuntimeError("the crowd does not come")
            yield
        finally:
            process.kill()


def first_word(port: int) -> float:
    """Seconds from a new connection to the first of its answer."""
    began = time.perf_counter()
    client = ask(port, "echo hi", 1)
    heard = b""
    while b"data: " not in heard:
        if not (more := client.recv(65536)):
            raise RuntimeError("an answer without a word")
        heard += more
    seconds = time.perf_counter() - began
    read_all([client])
    return seconds


def measure(port: int, n_requests: int) -> Iterator[Row]:
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(n_requests // 4):
        first_word(port)
    for _ in range(N_ROUNDS):
        alone += (first_word(port) for _ in range(n_requests))
        with crowded(port):
            beside += (first_word(port) for _ in range(n_requests))
        time.sleep(SETTLE_SECONDS)
    of_alone, of_beside = (statistics.quantiles(seconds, n=100) for seconds in (alone, beside))
    yield Row("first word, alone, median", of_alone[49] * 1e3, "ms")
    yield Row("first word, beside the crowd, median", of_beside[49] * 1e3, "ms")
    yield Row("first word, alone, 99 %", of_alone[98] * 1e3, "ms")
    yield Row("first word, beside the crowd, 99 %", of_beside[98] * 1e3, "ms")
    yield Row("beside the crowd / alone, median", of_beside[49] / of_alone[49], "ratio")
    yield Row("beside the crowd / alone, 99 %", of_beside[98] / of_alone[98], "ratio", "<= 1.1")


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(N_FILES, hard)), hard))
    if sys.argv[1:2] == ["crowd"]:
        os.nice(NICENESS)
        asyncio.run(crowd(int(sys.argv[2])))
        return
    n_requests = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with server(STEP_SECONDS) as (_, port):
        rows = list(measure(port, n_requests))
    show(f"slowloris, {N_LORISES} slow and {N_IDLE} idle clients", rows)


if __name__ == "__main__":
    main()
