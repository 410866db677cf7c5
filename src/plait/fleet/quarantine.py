"""A place for requests that may be why workers die: each runs alone, on a worker that nobody else is using.

Owned by a pool. One request at a time; the others wait. Whose request was answered to its end leaves the worker to the
next, so that a queue of innocents does not wait for a start each.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from plait.errors import ModelLoadFailed, PlaitError, Unavailable
from plait.fleet.journal import PAUSE_SECONDS, Journal
from plait.fleet.process import Worker
from plait.fleet.supervisor import delay
from plait.fleet.watch import watch
from plait.protocol import Answer, Resuming

OVER = Unavailable("the quarantine is over")
MOST_STARTS = 5
"""Of a worker, one after the other: its request is not to blame that it does not start."""


class Quarantine:
    """`start_worker` starts one with a single slot."""

    def __init__(self, start_worker: Callable[[], Awaitable[Worker]], hang_seconds: float) -> None:
        self._start_worker = start_worker
        self._hang_seconds = hang_seconds
        self._door = asyncio.Lock()
        self._n_waiting = 0
        self._vacant: Worker | None = None
        """On the way from one to the next, who waits already."""
        self._inside: Worker | None = None
        self._over: PlaitError | None = None

    async def generate(self, journal: Journal) -> AsyncGenerator[Answer, None]:
        """What is left of a request. Raises `WorkerDied`, and what keeps a worker from being started."""
        waiting = asyncio.ensure_future(self._enter())
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=PAUSE_SECONDS)
                if journal.has_begun:
                    yield Resuming()
            async with aclosing(self._visit(waiting.result(), journal)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            # In a task of its own: whoever is cancelled twice leaves the door open all the same.
            await asyncio.shield(asyncio.create_task(self._leave(waiting, journal)))

    def dismiss(self, why: PlaitError) -> None:
        """End the worker, and tell whoever is on it why."""
        if self._inside:
            self._inside.client.close(why.message, why)

    def stop(self, farewell: PlaitError) -> None:
        """For good: those who wait get the farewell, too."""
        self._over = farewell
        self.dismiss(farewell)

    async def _visit(self, worker: Worker, journal: Journal) -> AsyncGenerator[Answer, None]:
        """What a worker answers, which is ended when it hangs."""
        self._inside, watching = worker, asyncio.create_task(watch(worker, self._hang_seconds))
        try:
            async with aclosing(worker.client.generate(journal)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            watching.cancel()

    async def _enter(self) -> Worker:
        self._n_waiting += 1
        try:
            await self._door.acquire()
        except asyncio.CancelledError:
            self._n_waiting -= 1
            if not self._n_waiting and (vacant := self._take_vacant()):
                await vacant.stop(OVER, grace=0)
            raise
        self._n_waiting -= 1
        try:
            if self._over:
                raise self._over
            worker = self._take_vacant() or await self._start()
            if self._over:
                await worker.stop(self._over, grace=0)
                raise self._over
            return worker
        except BaseException:
            self._door.release()
            raise

    async def _start(self) -> Worker:
        """A worker of its own, which may take several tries, as long as each is short. Raises why there is none."""
        for n in range(1, MOST_STARTS):
            try:
                return await self._start_worker()
            except ModelLoadFailed as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise
                await asyncio.sleep(delay(n))
            if self._over:
                raise self._over
        return await self._start_worker()

    def _take_vacant(self) -> Worker | None:
        worker, self._vacant = self._vacant, None
        return None if worker and worker.client.died.is_set() else worker

    async def _leave(self, waiting: "asyncio.Future[Worker]", journal: Journal) -> None:
        """Whether it was let in or not: nothing of it stays."""
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait([waiting])
        if waiting.cancelled() or waiting.exception() is not None:
            return
        worker = waiting.result()
        if journal.is_over and self._n_waiting:
            self._vacant = worker
            self._door.release()
        else:
            self._door.release()
            await worker.stop(OVER, grace=0)
