"""One worker process: started, made to load its model, and always reaped.

Owns the process and the client that speaks to it. A worker ends when its socket does; the socket's end is also how its
death is noticed. Knows nothing of what to do then: that is `supervisor`'s.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired

from plait.errors import ModelLoadFailed, PlaitError, Unavailable, WorkerDied
from plait.fleet import oom
from plait.fleet.client import Client
from plait.metrics import Tally
from plait.protocol import Load, ModelInfo

COMMAND = (sys.executable, "-P", "-m", "plait.worker")
"""What runs a worker, when the number of its file descriptor is put behind. Modules do not come from where the user
happens to be."""
LOAD_SECONDS = 180.0
"""What a worker may take to be ready, besides reading its model: it may have to find out much."""
GHOST_SECONDS = 0.5
"""What a dead worker's last words get to be read, before its socket counts as dead, too: others may have that."""
SLOWEST_DISK = 20_000_000
"""Bytes a second."""
STDERR = 2
_NOT_FOR_WORKERS = ("PLAIT_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Launcher:
    """Starts processes from a thread of its own, at the priority that its maker had.

    A process inherits the priority of the thread that starts it and may not raise it; so a gateway that means to lower
    its own makes its launcher before. The thread lives as long as the launcher: Linux takes a worker whose parent
    *thread* ends for an orphan.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.command = tuple(command)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
        self._thread.submit(int).result()

    def launch(self, fd: int) -> Popen[bytes]:
        """Start a worker that inherits `fd`. Its own session keeps the terminal's Ctrl-C from it."""
        return self._thread.submit(
            Popen,
            [*self.command, str(fd)],
            env=environment(),
            stdin=DEVNULL,
            stdout=STDERR,
            pass_fds=[fd],
            start_new_session=True,
        ).result()

    def close(self) -> None:
        self._thread.shutdown()


class Worker:
    """A process and its client. Whenever the socket ends, the process is ended and reaped."""

    model: ModelInfo
    """What it has loaded; `start` waits for that."""

    def __init__(self, process: Popen[bytes], client: Client) -> None:
        self.client = client
        self._process = process
        self._grace = 0.0
        """Seconds that the process gets to end by itself once its socket has ended."""
        self.look_at_memory()
        self._pidfd = _pidfd(process)
        if self._pidfd is not None:
            asyncio.get_running_loop().add_reader(self._pidfd, self._leave)
        self._burial = asyncio.create_task(self._bury())

    @classmethod
    async def start(cls, launcher: Launcher, order: Load, tally: Tally, most_seconds: float = LOAD_SECONDS) -> "Worker":
        """Returns when the model is loaded; raises what the worker says of it, or `ModelLoadFailed`."""
        worker, name = await cls._launch(launcher, tally), Path(order.path).name
        try:
            async with asyncio.timeout(most_seconds):
                worker.model = await worker.client.load(order)
        except TimeoutError as error:
            refusal = ModelLoadFailed(f"{name} was not loaded within {most_seconds:.0f} s")
            await worker.stop(refusal, grace=0)
            raise refusal from error
        except WorkerDied as error:
            raise ModelLoadFailed(f"the worker died while it loaded {name} ({await worker.wait()})") from error
        except (PlaitError, asyncio.CancelledError):
            await worker.stop(Unavailable(f"{name} is not loaded"), grace=0)
            raise
        return worker

    @classmethod
    async def _launch(cls, launcher: Launcher, tally: Tally) -> "Worker":
        """A worker that has been told nothing yet. Nothing stays of one that is not to be."""
        with ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                with theirs:
                    process = launcher.launch(theirs.fileno())
                undo.callback(_end, process)
                client = Client(*await asyncio.open_unix_connection(sock=ours), tally)
            except OSError as error:
                raise ModelLoadFailed(f"no worker can be started: {error}") from error
            undo.pop_all()
            return cls(process, client)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> str:
        """Until the worker is dead and reaped; says how it died."""
        code = await asyncio.shield(self._burial)
        return oom.death(code, self._n_oom_kills, oom.n_kills())

    def kill(self) -> None:
        """End a worker that does not listen. Its death is noticed as any other, even if others hold its socket."""
        self._process.kill()
        self.client.close("it is killed")

    async def stop(self, farewell: PlaitError, grace: float) -> None:
        """End the worker, which gets `grace` seconds for it; whoever still waits for an answer gets the farewell."""
        self._grace = grace
        self.client.close("it is to end", farewell)
        await self.wait()

    def look_at_memory(self) -> None:
        """It lives: whoever the kernel has ended for lack of memory, it was not this one."""
        self._n_oom_kills = oom.n_kills()

    def _leave(self) -> None:
        """The process is dead, and so is its socket, though somebody else may have that."""
        loop = asyncio.get_running_loop()
        self._stop_watching()
        loop.call_later(GHOST_SECONDS, self._close_dead)

    def _close_dead(self) -> None:
        if not self.client.died.is_set():
            self.client.close("it is dead, and somebody else has its socket")

    def _stop_watching(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    async def _bury(self) -> int:
        await self.client.died.wait()
        self._stop_watching()
        try:
            return await asyncio.to_thread(self._process.wait, self._grace)
        except TimeoutExpired:
            self._process.kill()
        return await asyncio.to_thread(self._process.wait)


def load_seconds(n_bytes: int) -> float:
    """What the load of a model of that size may take at most."""
    return LOAD_SECONDS + n_bytes / SLOWEST_DISK


def environment() -> dict[str, str]:
    """A worker's: ours without the keys in it, all settings come with `Load`; and numpy needs no threads there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_WORKERS)}
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}


def _pidfd(process: Popen[bytes]) -> int | None:
    """What can be read when a process is dead; None where the kernel has no such thing, and its socket has to do."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        return None


def _end(process: Popen[bytes]) -> None:
    """At once: it has nothing to lose."""
    process.kill()
    process.wait()
