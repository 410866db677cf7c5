"""One served model: its replicas, which of them gets a request, and which goes on with it when that one dies.

Owns the replicas' supervisors, the model's tally and its queue's bound; the queue itself is in the workers.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
from msgspec import Struct

from plait.config import Routing
from plait.errors import ModelChanged, PlaitError, Unavailable, WorkerDied
from plait.fleet import fingerprint
from plait.fleet.base import Served, State
from plait.fleet.fingerprint import Fingerprint
from plait.fleet.journal import PAUSE_SECONDS, Journal, seeded
from plait.fleet.poison import MOST_DEATHS, Poison
from plait.fleet.process import Worker
from plait.fleet.quarantine import Quarantine
from plait.fleet.router import RoundRobin, Router
from plait.fleet.supervisor import Supervisor
from plait.fleet.turnstile import Turnstile, measure
from plait.metrics import Tally
from plait.protocol import Answer, Request, Resuming, Started, check_biases, check_ids

RETRY_SECONDS = 2
"""When a client may come back to a model that has no worker just now."""
GRACE_SECONDS = 5.0
"""What a worker gets to end by itself."""
FILES_SECONDS = 3.0
"""Between looks at the model's files."""
MOST_ATTEMPTS = 100
"""Workers that one request may outlive."""
PROSPECTS: tuple[State, ...] = ("ready", "restarting", "loading", "failed", "unloading")
"""What to hope for of a replica; a pool is as well as its best one."""


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be served."""

    name: str
    path: Path
    n_replicas: int
    n_slots: int
    """Of each replica."""
    max_queue: int
    max_queue_tokens: int
    routing: Routing = "prefix"
    n_bytes: int
    """Of memory, for all replicas."""
    cache_bytes: int = 0
    """On top of that, for prefixes of ended requests."""


class Pool:
    """A model that is served, from its load to its end."""

    def __init__(
        self,
        plan: Plan,
        start_worker: Callable[[Tally], Awaitable[Worker]],
        start_alone: Callable[[Tally], Awaitable[Worker]],
        hang_seconds: float,
        mapped: Sequence[Fingerprint] = (),
    ) -> None:
        """`start_alone` starts a worker with a single slot, for quarantine. `mapped`: files that workers map."""
        self.plan = plan
        self.tally = Tally()
        self.is_loading = True
        """Until `start` has returned."""
        self._n_vocab: int | None = None
        """None until a worker has told it."""
        self._mapped = mapped
        self._minding: asyncio.Task[None] | None = None
        self._created = int(time.time())
        self._is_leaving = False
        """Takes no more requests; those that are inside go on."""
        self._is_over = False
        self._news = asyncio.Event()
        """Set when a replica's state changes."""
        self._turnstile = Turnstile(plan.n_replicas * plan.n_slots + plan.max_queue, plan.max_queue_tokens)
        goes_round = plan.routing == "round-robin"
        self._router = RoundRobin(plan.n_replicas) if goes_round else Router(plan.n_replicas, slack=plan.n_slots)
        self._quarantine = Quarantine(lambda: start_alone(self.tally), hang_seconds)
        self._poison = Poison()
        self._replicas = [
            Supervisor(plan.name, lambda: start_worker(self.tally), hang_seconds, self._hear_news)
            for _ in range(plan.n_replicas)
        ]

    async def start(self) -> None:
        """Returns when every replica is ready; when one cannot be, ends them all and says why."""
        try:
            starts = (replica.start() for replica in self._replicas)
            for error in await asyncio.gather(*starts, return_exceptions=True):
                if error is not None:
                    raise error
        except BaseException:
            await self.stop(Unavailable(f"{self.plan.name} could not be loaded"))
            raise
        self.is_loading = False
        self._minding = asyncio.create_task(self._mind_files())

    async def _mind_files(self) -> None:
        """Whoever writes to a model's file changes it under the workers that have mapped it."""
        while self._mapped:
            await asyncio.sleep(FILES_SECONDS)
            try:
                await asyncio.to_thread(fingerprint.compare_mapped, self._mapped)
            except ModelChanged as error:
                self._quarantine.dismiss(error)
                for replica in self._replicas:
                    replica.dismiss(error)

    def forget(self) -> None:
        """Empty the prefix caches of all workers, those that are starting included."""
        for replica in self._replicas:
            replica.forget()

    async def generate(self, request: Request) -> AsyncGenerator[Answer, None]:
        """The answer, counted."""
        outcome = "cancelled"
        try:
            if self._is_leaving:
                raise Unavailable(f"{self.plan.name} is being unloaded")
            if self._n_vocab is not None:
                check_ids(request.prompt, self._n_vocab)
                check_biases(request.sampling.logit_bias, self._n_vocab)
            self._poison.refuse(request)
            with self._turnstile.place(measure(request.prompt), request.tenant) as place:
                async with aclosing(self._attempts(Journal(seeded(request)))) as answers:
                    async for answer in answers:
                        if isinstance(answer, Started):
                            place.begin()
                        yield answer
            outcome = "ok"
        except PlaitError as error:
            outcome = error.code
            raise
        finally:
            self.tally.outcomes[outcome] += 1
            self._share_out()

    async def _attempts(self, journal: Journal) -> AsyncGenerator[Answer, None]:
        """The answer, from as many workers as it takes.

        A request whose workers die may be why: after two deaths in a row, the second of a worker that had not got much
        further with it, it runs alone; after three it is refused.
        """
        while not journal.is_over:
            alone = journal.n_deaths == MOST_DEATHS - 1
            attempt = self._quarantine.generate(journal) if alone else self._attempt(journal)
            try:
                async with aclosing(attempt) as answers:
                    async for answer in answers:
                        yield answer
            except WorkerDied:
                journal.mark()
                if journal.n_attempts >= MOST_ATTEMPTS:
                    raise
                if journal.n_deaths == MOST_DEATHS:
                    raise self._poison.remember(journal.request) from None
                self.tally.n_resumed += 1

    async def _attempt(self, journal: Journal) -> AsyncGenerator[Answer, None]:
        """What one of the replicas answers; while all of them are restarting, what is said to who waits."""
        while not (workers := self._workers()):
            self._news.clear()
            with anyio.move_on_after(PAUSE_SECONDS) as pause:
                await self._news.wait()
            if pause.cancelled_caught and journal.has_begun:
                yield Resuming()
        loads = {n: worker.client.n_running for n, worker in workers.items()}
        if journal.n_attempts:
            # It has waited already: what a worker knows of its prompt is not worth another queue.
            loads = {n: load for n, load in loads.items() if load < self.plan.n_slots} or loads
        chosen = self._router.choose(journal.request.prompt, loads) if len(loads) > 1 else next(iter(loads))
        async with aclosing(workers[chosen].client.generate(journal)) as answers:
            async for answer in answers:
                yield answer

    def _hear_news(self) -> None:
        """Who waits for a worker looks again, and who waits in the queue of one goes where there is room."""
        self._news.set()
        workers = [replica.worker for replica in self._replicas if replica.worker]
        if workers:
            self._n_vocab = workers[0].model.n_vocab
        self._share_out()

    def _share_out(self) -> None:
        """Who waits in a worker's queue goes to one that has room."""
        workers = [replica.worker for replica in self._replicas if replica.worker]
        clients = [worker.client for worker in workers if not worker.client.died.is_set()]
        n_free = sum(max(0, self.plan.n_slots - client.n_running) for client in clients)
        for client in clients:
            n_free -= client.hand_back(min(n_free, max(0, client.n_running - self.plan.n_slots)))

    def _workers(self) -> dict[int, Worker]:
        """Those that are ready. Raises `Unavailable` when there will be none soon."""
        if self._is_over:
            raise Unavailable(f"{self.plan.name} is being unloaded")
        workers = {n: replica.worker for n, replica in enumerate(self._replicas) if replica.worker}
        if not workers and self._prospect() != "restarting":
            raise not_ready(self.served())
        return {n: worker for n, worker in workers.items() if not worker.client.died.is_set()}

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and let those that run finish if they do so in time."""
        self._is_leaving = True
        with anyio.move_on_after(seconds):
            await self._turnstile.is_empty.wait()

    async def stop(self, farewell: PlaitError) -> None:
        """End all workers; whoever still waits for an answer gets the farewell."""
        self._is_leaving = self._is_over = True
        if self._minding:
            self._minding.cancel()
        self._quarantine.stop(farewell)
        await asyncio.gather(*(replica.stop(farewell, GRACE_SECONDS) for replica in self._replicas))

    def served(self) -> Served:
        """What others may know of it."""
        workers = [replica.worker for replica in self._replicas if replica.worker]
        return Served(
            name=self.plan.name,
            path=str(self.plan.path),
            created=self._created,
            state=self._state(),
            reason=self._reason(),
            info=workers[0].model if workers else None,
            replicas=[replica.replica() for replica in self._replicas],
            tally=self.tally,
        )

    def _state(self) -> State:
        return "unloading" if self._is_leaving else self._prospect()

    def _prospect(self) -> State:
        """Its replicas' best."""
        return min((replica.state for replica in self._replicas), key=PROSPECTS.index)

    def _reason(self) -> str:
        """Why it is not ready."""
        state = self._prospect()
        reasons = (replica.reason for replica in self._replicas if replica.state == state)
        return "" if state == "ready" else next(reasons, "")


def not_ready(served: Served) -> Unavailable:
    """What is said to who asks a model that cannot answer, and will not soon."""
    return Unavailable(f"{served.name} is not ready: {served.reason}", retry_after=RETRY_SECONDS)
