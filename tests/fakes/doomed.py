"""A real worker with a fate: it is killed, or stopped, at one certain moment of its life, on whatever machine.

`python -m tests.fakes.doomed FOLDER FD` stands between the gateway and a real worker, and carries their frames to and
fro. What it carries tells it how far the worker is. Each such process takes the first fate in FOLDER that nobody has
taken, and lets its worker live when there is none left.
"""

import asyncio
import itertools
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Literal

import msgspec
from msgspec import Struct

from plait import protocol, wire
from plait.protocol import Event, Generate, Load, Order, Progress, Queued, Ready, Text
from tests.waiting import soon

FOREVER = 0.0


class Fate(Struct, frozen=True):
    """What happens to one worker, and when."""

    when: Literal["loading", "reading", "writing", "resuming", "starving"]
    """loading: the model's file is mapped. reading: a part of a prompt is read. resuming: it has somebody else's stream
    in its queue. starving: from its start it may map `most_memory` bytes; nobody ends it but itself."""
    at: int = 0
    """Of writing: after so many tokens of all its streams."""
    signal: int = signal.SIGKILL
    seconds: float = FOREVER
    """After which SIGCONT follows."""
    tells: float = 1.0
    """How much of the frame that brought it about still arrives."""
    most_memory: int = 0


def command(folder: Path, fates: Sequence[Fate]) -> tuple[str, ...]:
    """What runs workers of which the first has the first fate, and so on, for a `Launcher`."""
    for i, fate in enumerate(fates):
        (folder / f"{i}").write_bytes(msgspec.json.encode(fate))
    return (sys.executable, "-m", "tests.fakes.doomed", str(folder))


def take(folder: Path) -> Fate | None:
    for i in itertools.count():
        try:
            (folder / f"{i}").rename(folder / f"{i} taken")
        except FileNotFoundError:
            if not (folder / f"{i} taken").exists():
                return None
        else:
            return msgspec.json.decode((folder / f"{i} taken").read_bytes(), type=Fate)
    raise AssertionError("numbers do not end")


class Doom:
    """Owns the worker's process, and both ends' streams."""

    def __init__(self, fate: Fate | None, gateway: asyncio.StreamWriter, worker: asyncio.StreamWriter) -> None:
        self.fate = fate
        self.gateway, self.worker = gateway, worker
        self.process: Popen[bytes]
        self.n_told = 0
        self.resumes = self.is_struck = False

    def start(self, fd: int) -> None:
        self.process = Popen([sys.executable, "-P", "-m", "plait.worker", str(fd)], pass_fds=[fd])
        if self.fate and self.fate.when == "starving":
            resource.prlimit(self.process.pid, resource.RLIMIT_AS, (self.fate.most_memory,) * 2)

    async def obey(self, reader: asyncio.StreamReader) -> None:
        """Orders, until the gateway hangs up."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                body = await wire.read(reader)
                self.worker.write(wire.pack(body))
                for order in protocol.decode_orders(body):
                    await self.watch(order)

    async def watch(self, order: Order) -> None:
        maps = Path("/proc", str(self.process.pid), "maps")
        match order:
            case Load(path=path) if self.fate and self.fate.when == "loading":
                await soon(lambda: not self.fate or path in maps.read_text())
                if self.fate:
                    self.strike(self.fate)
            case Generate(known=known):
                self.resumes |= any(known)

    async def report(self, reader: asyncio.StreamReader) -> None:
        """Events, until the worker is dead. What a killed one had said before, and was not read, is lost."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame = wire.pack(await wire.read(reader))
                due = [self.is_due(self.fate, event) for event in protocol.decode_events(frame[4:]) if self.fate]
                if self.fate and any(due):
                    self.gateway.write(frame[: int(self.fate.tells * len(frame))])
                    self.strike(self.fate)
                elif not self.is_struck:
                    self.gateway.write(frame)

    def is_due(self, fate: Fate, event: Event) -> bool:
        match event:
            case Ready():
                return fate.when == "loading"
            case Text(tokens=tokens):
                self.n_told += len(tokens)
                return fate.when == "writing" and self.n_told >= fate.at
            case Progress(n_done=n_done, n_prompt=n_prompt):
                return fate.when == "reading" and 0 < n_done < n_prompt
            case Queued():
                return fate.when == "resuming" and self.resumes
        return False

    def strike(self, fate: Fate) -> None:
        os.kill(self.process.pid, fate.signal)
        self.fate, self.is_struck = None, fate.signal != signal.SIGSTOP
        if fate.seconds:
            asyncio.get_running_loop().call_later(fate.seconds, os.kill, self.process.pid, signal.SIGCONT)


async def main(folder: Path, fd: int) -> None:
    gateway_reader, gateway = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
    ours, theirs = socket.socketpair()
    worker_reader, worker = await asyncio.open_unix_connection(sock=ours)
    doom = Doom(take(folder), gateway, worker)
    with theirs:
        doom.start(theirs.fileno())
    obeying = asyncio.create_task(doom.obey(gateway_reader))
    await asyncio.wait([obeying, asyncio.create_task(doom.report(worker_reader))], return_when=asyncio.FIRST_COMPLETED)
    if obeying.done():
        worker.close()
    code = await asyncio.to_thread(doom.process.wait)
    with suppress(ConnectionError):
        await gateway.drain()
    # Without goodbyes, as the worker itself.
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
