"""Keeps one replica alive: a worker that dies or hangs is replaced, ever later when workers die without having been of
use, and after five such deaths in a minute only now and then, to see whether that helps.

Owns the replica's worker, its state and the record of its deaths. A model that does not load at first is an error of
who asked for it, and is not tried again. One whose files have changed since has failed until they are back.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from plait.errors import ModelChanged, PlaitError, Unavailable
from plait.fleet.base import Replica, State
from plait.fleet.client import Client
from plait.fleet.process import Worker
from plait.fleet.watch import patience, watch

logger = logging.getLogger(__name__)

HEALTHY_SECONDS = 60.0
USEFUL_TOKENS = 16
"""A worker that lived so long, or wrote so much, was of use: its death begins a new record."""
LONGEST_DELAY = 30.0
BREAKER_DEATHS = 5
BREAKER_SECONDS = 60.0
"""So many deaths in so many seconds, and requests are refused instead of kept waiting."""


def delay(n_deaths: int) -> float:
    """Seconds to wait before the next start after so many deaths in a row: 0, 1, 2, 4, … 30."""
    return 0.0 if n_deaths <= 1 else min(2.0 ** min(n_deaths - 2, 10), LONGEST_DELAY)


class Record:
    """Deaths in a row of workers that had been of no use. Times are the event loop's."""

    def __init__(self) -> None:
        self.n_in_a_row = 0
        self.is_hopeless = False
        """There were five in a minute, and no worker has been of use since."""
        self._latest: deque[float] = deque(maxlen=BREAKER_DEATHS)

    def note(self, now: float, *, was_useful: bool) -> None:
        if was_useful:
            self.n_in_a_row, self.is_hopeless = 0, False
            self._latest.clear()
        self.n_in_a_row += 1
        self._latest.append(now)
        self.is_hopeless |= len(self._latest) == BREAKER_DEATHS and now - self._latest[0] < BREAKER_SECONDS


class Supervisor:
    """One replica of a model. `name`: the model's, for the log. `news` is called when its state changes."""

    def __init__(
        self, name: str, start_worker: Callable[[], Awaitable[Worker]], hang_seconds: float, news: Callable[[], None]
    ) -> None:
        self.state: State = "loading"
        self.reason = "loading the model"
        self.worker: Worker | None = None
        """Who works, while the state is "ready"."""
        self.n_restarts = 0
        self._is_to_forget = False
        """The next worker begins with an empty prefix cache."""
        self._name = name
        self._start_worker = start_worker
        self._hang_seconds = hang_seconds
        self._news = news
        self._record = Record()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the first worker is ready; raises what keeps it from getting there."""
        try:
            worker = await self._start_worker()
        except PlaitError as error:
            self._change("failed", error.message)
            raise
        if self.state == "unloading":
            farewell = Unavailable(self.reason)
            await worker.stop(farewell, grace=0)
            raise farewell
        self._welcome(worker)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, farewell: PlaitError, grace: float) -> None:
        """End the worker for good, and one that only starts once it has; who waits for an answer gets the farewell."""
        self._change("unloading", farewell.message)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self.worker:
            await self.worker.stop(farewell, grace)
            self.worker = None

    def dismiss(self, why: PlaitError) -> None:
        """End the worker, whose answers would be wrong, and tell those who wait for one why."""
        if self.worker:
            self.worker.client.close(why.message, why)

    def forget(self) -> None:
        """Empty the worker's prefix cache, or the next one's, if there is none now."""
        self._is_to_forget = True
        if self.worker:
            with contextlib.suppress(PlaitError):
                self.worker.client.forget()
                self._is_to_forget = False

    def replica(self) -> Replica:
        """What others may know of it."""
        client = self.worker.client if self.worker else None
        return Replica(
            pid=self.worker.pid if self.worker else None,
            state=self.state,
            stats=client.stats if client else None,
            seconds_since_pulse=client.silence() if client else None,
            patience=patience(client, self._hang_seconds) if client else self._hang_seconds,
            n_running=client.n_running if client else 0,
            n_restarts=self.n_restarts,
        )

    def _change(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        self._news()

    def _welcome(self, worker: Worker) -> None:
        self.worker = worker
        if self._is_to_forget:
            self.forget()
        self._change("ready", "")

    async def _keep(self) -> None:
        while True:
            try:
                if self.worker:
                    await self._mourn(self.worker)
                self._welcome(await self._replace())
            except Exception as error:
                # A defect of ours, or of the machine: the model must not be without a keeper for that.
                logger.exception("no new worker for model %r", self._name)
                self._change("failed", f"{type(error).__name__}: {error}")

    async def _mourn(self, worker: Worker) -> None:
        """Wait for a worker's death, and keep the record of it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        hangs = await watch(worker, self._hang_seconds)
        self.worker = None
        self._change("restarting", "the worker died")
        lived = loop.time() - began
        self._record.note(loop.time(), was_useful=lived >= HEALTHY_SECONDS or has_written(worker.client))
        how = await worker.wait()
        self._change(self._state_after_death(), hangs or f"the worker died ({how})")
        message = "process %d of model %r: %s after %.1f s; it is replaced"
        logger.warning(message, worker.pid, self._name, self.reason, lived)

    def _state_after_death(self) -> State:
        return "failed" if self._record.is_hopeless else "restarting"

    async def _replace(self) -> Worker:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LONGEST_DELAY if self.state == "failed" else delay(self._record.n_in_a_row))
            self.n_restarts += 1
            try:
                return await self._start_worker()
            except PlaitError as error:
                self._record.note(loop.time(), was_useful=False)
                is_final = isinstance(error, ModelChanged)
                self._change("failed" if is_final else self._state_after_death(), error.message)
                logger.error("no new worker for model %r: %s", self._name, error.message)


def has_written(client: Client) -> bool:
    return client.stats is not None and client.stats.output_tokens_total >= USEFUL_TOKENS
