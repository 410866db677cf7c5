"""The fleet whose workers are child processes on this machine.

Owns the pools, one for each model, and the launcher of their workers. What a model may take of the memory, `budget`
says; what it is called and where it lies, `registry` does.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from msgspec import structs

from plait import gguf
from plait.config import Config
from plait.cores import n_cores
from plait.errors import Conflict, InvalidModel, ModelNotFound, PlaitError, Unavailable
from plait.fleet import budget, conversion, fingerprint, probes, registry
from plait.fleet.base import Served
from plait.fleet.budget import Fit
from plait.fleet.failures import Failures
from plait.fleet.fingerprint import Fingerprint
from plait.fleet.pool import Plan, Pool, not_ready
from plait.fleet.process import COMMAND, Launcher, Worker, load_seconds
from plait.fleet.registry import Source
from plait.metrics import Tally
from plait.protocol import Answer, Load, Probed, ProbeKey, Request

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Told = TypeVar("Told")

NEWCOMERS_SHARE = 0.5
"""Of the memory that is left, for a model that is loaded while others are served: the next may want to come, too."""


class LocalFleet:
    """Models on this machine. `start` serves those that the config names, `close` ends them all."""

    def __init__(self, config: Config, command: Sequence[str] = COMMAND) -> None:
        self._config = config
        self._launcher = Launcher(command)
        self._resolver = ThreadPoolExecutor(max_workers=2, thread_name_prefix="resolver")
        """Its own threads: a download takes long, and whoever waits for a worker's end needs one soon."""
        self._n_bytes = budget.available(config.models.memory_budget)
        self._cache_ram = budget.cache_ram(config, max(1, len(config.models.model)))
        """Of each worker of those models that are served from the start."""
        self._pools: dict[str, Pool] = {}
        self._failures = Failures()
        """Of other names than the pools'."""
        self._probed: dict[ProbeKey, Probed] = {}
        """What workers measured since the start, whole or not: those that follow them do not measure again."""
        self._admission = asyncio.Lock()
        """Held while a newcomer is weighed: the memory is given away once."""

    async def start(self, sources: Sequence[str] | None = None) -> None:
        """Serve these, or what the config names, or the demo model; each gets an equal share of the memory."""
        if sources is None:
            sources = self._config.models.model or (registry.DEMO,)
        for n_loaded, source in enumerate(sources):
            await self._serve(source, 1 / (len(sources) - n_loaded), cache_ram=self._cache_ram)

    async def close(self) -> None:
        """End all workers; whoever still waits for an answer is told that the server ends."""
        farewell = Unavailable("the server is shutting down")
        await asyncio.gather(*(pool.stop(farewell) for pool in self._pools.values()))
        self._launcher.close()
        self._resolver.shutdown(wait=False, cancel_futures=True)

    def models(self) -> list[Served]:
        return [*(pool.served() for pool in self._pools.values()), *self._failures.served()]

    def generate(self, model: str | None, request: Request) -> AsyncGenerator[Answer, None]:
        return self._find(model).generate(request)

    async def load(self, source: str, name: str | None = None) -> Served:
        return await self._serve(source, NEWCOMERS_SHARE, name)

    async def unload(self, name: str) -> None:
        if self._failures.forget(name):
            return
        pool = self._find(name)
        if pool.is_loading:
            raise Conflict(f"{name} is still loading")
        await pool.drain(self._config.server.drain_timeout)
        await pool.stop(Unavailable(f"{name} is being unloaded"))
        self._take_off(pool)

    def forget(self) -> None:
        for pool in self._pools.values():
            pool.forget()

    async def _serve(
        self, spelling: str, share: float, name: str | None = None, cache_ram: int | None = None
    ) -> Served:
        """Find and load a model; one that is there and cannot be loaded is listed with the reason."""
        source = await self._apart(registry.resolve, spelling)
        if name is not None:
            source = structs.replace(source, name=name)
        try:
            return await self._load(source, share, cache_ram)
        except PlaitError as error:
            if source.name not in self._pools:
                self._failures.remember(source, error)
            raise

    async def _load(self, source: Source, share: float, cache_ram: int | None) -> Served:
        """Weigh and start a model, which takes `share` of the memory that is left, or more if it has to.
        `cache_ram` None: what its workers get for prefixes is a part of what is free then."""
        try:
            pool = await self._admit(await self._apart(self._converted, source), share, cache_ram)
        except gguf.Unreadable:
            raise
        except gguf.GGUFError as error:
            raise InvalidModel(error.message, param="model") from error
        try:
            await pool.start()
        except BaseException:
            self._take_off(pool)
            raise
        return pool.served()

    async def _apart(self, find: Callable[[Asked], Told], asked: Asked) -> Told:
        """What `find` tells, which takes long: a model may have to be fetched, or converted."""
        return await asyncio.get_running_loop().run_in_executor(self._resolver, find, asked)

    def _take_off(self, pool: Pool) -> None:
        """From the list, where another of the same name may stand by now."""
        if self._pools.get(pool.plan.name) is pool:
            del self._pools[pool.plan.name]

    def _converted(self, source: Source) -> Source:
        """Blocks."""
        file = conversion.ready(source.path, self._config)
        return source if file == source.path else structs.replace(source, converted=file)

    async def _admit(self, source: Source, share: float, cache_ram: int | None) -> Pool:
        """A pool for the model, in the list under its name, and its memory set aside."""
        async with self._admission:
            if source.name in self._pools:
                taken = f"a model named {source.name} is served already; NAME=FILE gives this one another"
                raise Conflict(taken, param="model")
            header = await asyncio.to_thread(gguf.skim, source.file)
            gguf.check(header)
            room = self._room(header.n_file_bytes if self._config.engine.mmap else 0)
            fit = await asyncio.to_thread(budget.fit, source.file, self._config.engine, room, share)
            digest = await asyncio.to_thread(gguf.digest, source.file)
            if cache_ram is None:
                promised = sum(pool.plan.cache_bytes for pool in self._pools.values())
                cache_ram = budget.cache_ram(self._config, promised=promised)
            pool = self._pools[source.name] = self._pool(source, fit, digest, cache_ram)
            self._failures.forget(source.name)
            return pool

    def _pool(self, source: Source, fit: Fit, digest: str, cache_ram: int) -> Pool:
        files, alone = fingerprint.take(source.file), structs.replace(fit, slots=1)
        start = partial(self._start, [*files, *fingerprint.take_adapters(self._config.engine.lora)])
        return Pool(
            self._plan(source, fit, cache_ram),
            start_worker=partial(start, self._order(source, fit, digest, fit.slots, cache_ram)),
            start_alone=partial(start, self._order(source, alone, digest, fit.slots, cache_ram=0)),
            hang_seconds=self._config.models.hang_timeout,
            mapped=files if self._config.engine.mmap else (),
        )

    async def _start(self, files: list[Fingerprint], order: Load, tally: Tally) -> Worker:
        """A worker for a model whose files are still these. Raises `ModelChanged`."""
        await asyncio.to_thread(fingerprint.compare, files)
        on_disk = await asyncio.to_thread(probes.load, order.digest)
        begun = tuple(known for known in on_disk if known.facts.cut_short)
        ended = (known for known in on_disk if not known.facts.cut_short)
        probed = (*(known for key, known in self._probed.items() if key.model == order.digest), *ended)
        most_seconds = load_seconds(sum(file.n_bytes for file in files)) + order.engine.most_probe_seconds
        worker = await Worker.start(
            self._launcher, structs.replace(order, probed=probed, begun=begun), tally, most_seconds
        )
        if measured := worker.model.probed:
            self._probed[measured.key] = probes.further(measured, self._probed.get(measured.key))
            await _or_end(worker, asyncio.to_thread(probes.save, measured))
        return worker

    def _room(self, n_shared: int) -> int:
        """Bytes for one replica. `n_shared`: of mapped weights, which are in memory once for all replicas."""
        taken = sum(pool.plan.n_bytes for pool in self._pools.values())
        room = self._n_bytes - taken
        return n_shared + (room - n_shared) // self._config.models.replicas

    def _order(self, source: Source, fit: Fit, digest: str, n_together: int, cache_ram: int) -> Load:
        settings = self._config.engine
        engine = structs.replace(
            settings,
            ctx_size=fit.ctx_size,
            slots=fit.slots,
            kv_cells=fit.pool_cells,
            threads=settings.threads or max(1, n_cores() // self._config.models.replicas),
            cache_ram=cache_ram,
        )
        return Load(str(source.file), engine, self._config.log.log_level, digest, n_together=n_together)

    def _plan(self, source: Source, fit: Fit, cache_ram: int) -> Plan:
        n_replicas = self._config.models.replicas
        n_shared = fit.model_bytes if self._config.engine.mmap else 0
        return Plan(
            name=source.name,
            path=source.path,
            n_replicas=n_replicas,
            n_slots=fit.slots,
            max_queue=self._config.server.max_queue,
            max_queue_tokens=self._config.server.max_queue_tokens,
            routing=self._config.models.routing,
            n_bytes=n_shared + n_replicas * (fit.n_bytes - n_shared),
            cache_bytes=n_replicas * cache_ram,
        )

    def _find(self, name: str | None) -> Pool:
        for pool in self._pools.values():
            if name in (None, pool.plan.name):
                return pool
        for failed in self._failures.served():
            if name in (None, failed.name):
                raise not_ready(failed)
        if not self._pools:
            raise ModelNotFound("no model is served", param="model")
        raise ModelNotFound(f"there is no model {name!r}; served are {', '.join(self._pools)}", param="model")


async def _or_end(worker: Worker, last: Awaitable[None]) -> None:
    """What is still to be done before somebody owns a worker. It is ended if that is cancelled."""
    try:
        await last
    except BaseException:
        await worker.stop(Unavailable("the model is not loaded"), grace=0)
        raise
