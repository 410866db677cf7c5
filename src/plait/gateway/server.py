"""Runs the gateway: sockets, signals, priority, and the order in which things begin and end.

`/livez` answers while models still load. The first SIGTERM or SIGINT drains: no new requests, those that run may
finish. The second ends the waiting, the third is the system's own.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
import uvloop
from starlette.types import ASGIApp

from plait import allocator, log
from plait.config import Config
from plait.config import Server as Settings
from plait.fleet.base import Served
from plait.fleet.local import LocalFleet
from plait.fleet.process import COMMAND
from plait.gateway.app import DIALECTS, create_app
from plait.gateway.http import Connection
from plait.gateway.listeners import address, listening
from plait.gateway.table import Dialect
from plait.gateway.traffic import Traffic
from plait.web.leaving import leavable

logger = logging.getLogger(__name__)

OnReady = Callable[[Sequence[Served], Sequence[str]], None]
"""Told what is served, and the addresses."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NICENESS = 5
"""The cores belong to the kernels: the gateway gives way to its workers."""
KEEP_ALIVE_SECONDS = 60
SPARE_FILES = 256
"""What is open besides connections."""
CUT_SECONDS = 2
"""What an answer gets to say that it was cut off."""


def serve(
    config: Config,
    on_ready: OnReady,
    *,
    dialects: Sequence[Dialect] = DIALECTS,
    sources: Sequence[str] | None = None,
    worker_command: Sequence[str] = COMMAND,
) -> None:
    """Serve until a signal. Raises what keeps the models from being served.

    `sources` are served from the start instead of those that the config names; there may be none.
    """
    allocator.use_one_arena()
    log.setup(config.log.log_level, "gateway")
    # Before the priority is lowered: the fleet's launcher keeps the one that it finds, and gives it to the workers.
    fleet = LocalFleet(config, worker_command)
    os.nice(NICENESS)
    _allow_files(config.server.max_connections + SPARE_FILES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, fleet, on_ready, dialects, sources))


def _allow_files(n: int) -> None:
    """Each connection is a file, and processes begin with leave to open few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = n if hard == resource.RLIM_INFINITY else min(n, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _run(
    config: Config,
    fleet: LocalFleet,
    on_ready: OnReady,
    dialects: Sequence[Dialect],
    sources: Sequence[str] | None,
) -> None:
    traffic = Traffic(is_preparing=True)
    with listening(config.server) as listeners:
        addresses = [address(listener) for listener in listeners]
        async with answering(create_app(config, fleet, traffic, dialects), config.server, listeners):
            try:
                async with _until_signal(None):
                    await fleet.start(sources)
                    for dialect in dialects:
                        await dialect.prepare(fleet)
                    traffic.is_preparing = False
                    on_ready(fleet.models(), addresses)
                    await asyncio.Event().wait()
                await _drain(traffic, config.server.drain_timeout)
            finally:
                await fleet.close()


async def _drain(traffic: Traffic, seconds: float) -> None:
    """Take no more requests, and let those that run finish, for so long at most."""
    traffic.is_draining = True
    logger.info("shutting down; %d requests have %g s to be answered", traffic.n_running, seconds)
    async with _until_signal(seconds):
        await traffic.is_quiet.wait()
    if traffic.n_running:
        logger.warning("%d answers are cut off", traffic.n_running)


@asynccontextmanager
async def _until_signal(seconds: float | None) -> AsyncIterator[None]:
    """Leave the block at a signal that asks the process to end, or after some seconds."""
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if not patience.expired():
            patience.reschedule(0)

    async with leavable(seconds) as patience:
        for number in SIGNALS:
            loop.add_signal_handler(number, leave)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


@asynccontextmanager
async def answering(app: ASGIApp, settings: Settings, listeners: list[socket.socket]) -> AsyncIterator[None]:
    """Answer on the listeners for the time of the block."""
    server = Server(app, settings)
    serving = asyncio.create_task(server.serve(listeners))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class Server(uvicorn.Server):
    """uvicorn, with our own limits and without signal handlers of its own."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        limits = ("header_timeout", "write_timeout", "max_connections")
        connection = type("Connection", (Connection,), {name: getattr(settings, name) for name in limits})
        super().__init__(
            uvicorn.Config(
                app,
                http=connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CUT_SECONDS,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
