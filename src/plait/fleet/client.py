"""The gateway's end of one worker's socket: requests go out as orders, their answers come back as streams of events.

Owns the socket and the streams that wait on it; lives on the event loop's thread. Treats the worker as hostile: a
frame that is not what `protocol` says is the worker's death, and so is the socket's end. Each request's journal is
written here, before its client is told anything.
"""

import asyncio
import itertools
import logging
import statistics
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import msgspec
from msgspec import structs

from plait import protocol, wire
from plait.errors import BodyTooLarge, PlaitError, WorkerDied, from_code
from plait.fleet.journal import PAUSE_SECONDS, Journal
from plait.metrics import Tally
from plait.protocol import (
    Answer,
    Cancel,
    Done,
    Event,
    Failed,
    Forget,
    Load,
    ModelInfo,
    Order,
    Progress,
    Queued,
    Ready,
    Resuming,
    Started,
    Stats,
    Text,
)

logger = logging.getLogger(__name__)

BROKEN = (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""How reading from a worker ends that is dead or mad."""
N_RECENT_STEPS = 64
"""From which it is known how long a step usually takes."""


class HandedBack(msgspec.Struct, frozen=True):
    """Not from the worker: another one has room for a request that only waits in this one's queue."""


Spoken = Queued | Started | Progress | Text | Done | Failed | HandedBack
"""What is heard of a request."""


@dataclass(slots=True, eq=False)
class _Stream:
    """What has been heard for one request and not been taken yet."""

    journal: Journal
    heard: deque[Spoken] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: Spoken) -> None:
        self.heard.append(event)
        self.news.set()

    async def next(self) -> Spoken:
        while not self.heard:
            self.news.clear()
            await self.news.wait()
        return self.heard.popleft()

    async def next_until(self, end: float) -> Spoken | None:
        """None when nothing was heard until that time of the loop's clock."""
        try:
            async with asyncio.timeout_at(end):
                return await self.next()
        except TimeoutError:
            return None


class Client:
    """One worker, seen through its socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally) -> None:
        self.stats: Stats | None = None
        self.last_pulse: float | None = None
        """When the worker's engine last spoke, on the loop's clock."""
        self.died = asyncio.Event()
        self._began = asyncio.get_running_loop().time()
        self._recent_steps: deque[float] = deque(maxlen=N_RECENT_STEPS)
        self._recent_rows: deque[float] = deque(maxlen=N_RECENT_STEPS)
        """What a row took in these steps."""
        self._tally = tally
        self._reader, self._writer = reader, writer
        self._farewell = Failed(0, WorkerDied.code, "the process that worked on this died; please try again")
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._loading: asyncio.Future[ModelInfo] = asyncio.get_running_loop().create_future()
        self._listener = asyncio.create_task(self._listen())

    @property
    def n_running(self) -> int:
        return len(self._streams)

    async def load(self, order: Load) -> ModelInfo:
        """Have the worker load its model; once, and before all else."""
        self._send(order)
        return await self._loading

    def silence(self) -> float | None:
        """Seconds since its engine spoke; None before it first did."""
        return None if self.last_pulse is None else asyncio.get_running_loop().time() - self.last_pulse

    def usual_step(self) -> float | None:
        """Seconds; None before the first step has been told of."""
        return statistics.median(self._recent_steps) if self._recent_steps else None

    def usual_row(self) -> float | None:
        """The same, for one row of a step."""
        return statistics.median(self._recent_rows) if self._recent_rows else None

    async def generate(self, journal: Journal) -> AsyncGenerator[Answer, None]:
        """What is left of a request, written down and then told, until every choice is `Done` or it is handed back.

        Leaving the loop early cancels the work.
        """
        id, stream = next(self._ids), _Stream(journal)
        if self._has_hung_up():
            journal.miss()
            raise _error(self._farewell)
        self._send(journal.order(id))
        self._streams[id] = stream
        has_failed = False
        loop = asyncio.get_running_loop()
        pause_ends = loop.time() + PAUSE_SECONDS
        try:
            while not journal.is_over:
                match event := await (stream.next_until(pause_ends) if journal.is_resuming else stream.next()):
                    case None:
                        pause_ends = loop.time() + PAUSE_SECONDS
                        yield Resuming()
                        continue
                    case HandedBack() if journal.is_queued:
                        return
                    case HandedBack():
                        continue
                    case Failed():
                        has_failed = True
                        raise _error(event)
                    case Text(choice=choice) | Done(choice=choice) if not journal.expects(choice):
                        raise self.close(f"it spoke for choice {choice}, which does not run")
                    case Done():
                        self._tally.count_choice(event)
                if journal.note(event) and not isinstance(event, Queued):
                    yield event
        finally:
            del self._streams[id]
            if not (journal.is_over or has_failed or self._has_hung_up()):
                self._send(Cancel(id))

    def hand_back(self, n: int) -> int:
        """Give up requests that only wait here, so many at most, the oldest first; returns how many there were."""
        waiting = [stream for stream in self._streams.values() if stream.journal.is_queued][:n]
        for stream in waiting:
            stream.put(HandedBack())
        return len(waiting)

    def forget(self) -> None:
        """Empty the worker's prefix cache."""
        self._send(Forget())

    def close(self, why: str, farewell: PlaitError | None = None) -> PlaitError:
        """Hang up, which ends the worker. All who wait for it get the farewell, which is returned."""
        logger.debug("a worker is given up: %s", why)
        if farewell and not self.died.is_set():
            self._farewell = Failed(0, farewell.code, farewell.message)
        self._writer.close()
        self._die()
        return _error(self._farewell)

    def _has_hung_up(self) -> bool:
        """A transport that is closed knows it before who reads from it, and takes nothing more."""
        if self._writer.is_closing() and not self.died.is_set():
            self.close("it hung up")
        return self.died.is_set()

    def _send(self, order: Order) -> None:
        if self._has_hung_up():
            raise _error(self._farewell)
        body = protocol.encode([order])
        if len(body) > wire.MAX_FRAME:
            raise BodyTooLarge(f"the request takes {len(body):,} bytes to pass on; {wire.MAX_FRAME:,} are the most")
        self._writer.write(wire.pack(body))

    async def _listen(self) -> None:
        try:
            while not self.died.is_set():
                for event in protocol.decode_events(await wire.read(self._reader)):
                    self._hear(event)
        except BROKEN as error:
            self.close(f"{type(error).__name__}: {error}")

    def _hear(self, event: Event) -> None:
        match event:
            case Stats():
                self._hear_stats(event)
            case Ready() | Failed(id=0) if self._loading.done():
                self.close(f"it says {type(event).__name__}, and nobody asked")
            case Ready():
                self.last_pulse = asyncio.get_running_loop().time()
                self._loading.set_result(event.model)
            case Failed(id=0):
                self._loading.set_exception(_error(event))
            case _ if stream := self._streams.get(event.id):
                stream.put(event)

    def _hear_stats(self, stats: Stats) -> None:
        """No step took longer than the worker has lived, whatever it says of that."""
        self.stats = stats
        self.last_pulse = asyncio.get_running_loop().time()
        most = self.last_pulse - self._began
        steps = [seconds if 0 <= seconds <= most else most for seconds in stats.step_seconds]
        self._recent_steps.extend(steps)
        rows = zip(steps, stats.step_rows, strict=False)
        self._recent_rows.extend(seconds / n_rows for seconds, n_rows in rows if n_rows > 0)
        self._tally.count_steps(structs.replace(stats, step_seconds=steps))

    def _die(self) -> None:
        self.died.set()
        if not self._loading.done():
            self._loading.set_exception(_error(self._farewell))
        for stream in self._streams.values():
            stream.put(self._farewell)


def _error(failed: Failed) -> PlaitError:
    return from_code(failed.code, failed.message, failed.param)
