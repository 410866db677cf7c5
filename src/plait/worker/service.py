"""The worker's I/O thread: orders come in, are prepared, and go to the engine; what the engine says goes out."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from plait import log, protocol, wire
from plait.errors import GenerationFailed, PlaitError
from plait.protocol import Cancel, Event, Failed, Forget, Generate, Load, Order
from plait.worker import sandbox, storage
from plait.worker.bridge import Bridge, Drop, Empty, Stop, Submit
from plait.worker.engine_thread import EngineThread
from plait.worker.prompt import Loaded, prepare
from plait.worker.session import Say, Work, open_work

TOKENIZER_STACK = 512 * 1024**2
"""Some pre-tokenizers recurse once per character (llama.cpp issue 27783). Address space only: pages come when used."""
NICENESS = 5
"""How far this thread steps back, so that the cores belong to the kernels."""

logger = logging.getLogger(__name__)


class Service:
    """Owns the socket, and the requests that are being prepared."""

    tokenizer: ThreadPoolExecutor
    """Since `start`: what a process gives up is given up by the threads that come later, too."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.loop = asyncio.get_running_loop()
        self.bridge = Bridge(self.loop, self.send)
        self.loaded: asyncio.Future[Loaded] = self.loop.create_future()
        self.preparing: dict[int, asyncio.Task[None]] = {}

    def send(self, events: list[Event]) -> None:
        self.writer.write(wire.pack(protocol.encode(events)))

    async def run(self) -> None:
        """Serve until the gateway closes its end, or the model cannot be loaded."""
        thread: EngineThread | None = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                for order in protocol.decode_orders(await wire.read(self.reader)):
                    if isinstance(order, Load):
                        thread = self.start(order)
                    else:
                        self.obey(order)
        if thread and self.loaded.done():
            await self.stop(thread)

    async def stop(self, thread: EngineThread) -> None:
        """Nobody may be tokenizing when the engine's thread frees the model."""
        for task in self.preparing.values():
            task.cancel()
        await asyncio.to_thread(self.tokenizer.shutdown, cancel_futures=True)
        self.bridge.put(Stop())
        await asyncio.to_thread(thread.join)

    def start(self, load: Load) -> EngineThread:
        log.setup(load.log_level, "worker")
        folder = storage.folder(load)
        protections = sandbox.enter(load, folder) if load.engine.sandbox else ()
        self.tokenizer = large_stack_executor()
        thread = EngineThread(load, folder, protections, self.bridge, self.is_ready)
        thread.start()
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        return thread

    def is_ready(self, loaded: Loaded) -> None:
        """Called on the engine's thread."""
        self.loop.call_soon_threadsafe(self.loaded.set_result, loaded)

    def obey(self, order: Order) -> None:
        match order:
            case Generate(id):
                self.preparing[id] = asyncio.create_task(self.generate(order))
            case Cancel(id) if task := self.preparing.pop(id, None):
                task.cancel()
            case Cancel(id):
                self.bridge.put(Drop(id, self.bridge.n_steps))
            case Forget():
                self.bridge.put(Empty())

    async def generate(self, order: Generate) -> None:
        """Prepare off this thread and hand over, or refuse. A defect of ours ends this request and no other."""
        received = time.monotonic()
        try:
            loaded = await self.loaded
            work = await wanted(self.tokenizer.submit(opened, order, loaded, received, self.bridge.say))
        except PlaitError as error:
            self.send([Failed(order.id, error.code, error.message, error.param)])
        except Exception:
            logger.exception("a request could not be prepared")
            self.send([Failed(order.id, GenerationFailed.code, "the request could not be prepared")])
        else:
            self.bridge.put(Submit(work))
        finally:
            self.preparing.pop(order.id, None)


def opened(order: Generate, loaded: Loaded, received: float, say: Say) -> Work:
    """Runs on the tokenizer's thread, all of it: it takes seconds for many choices of a long prompt, and whoever hears
    nothing of the I/O thread for so long takes the worker for hung. Raises `BadRequest`."""
    return open_work(order, prepare(order.request, loaded), loaded, received, say)


async def wanted(job: Future[Work]) -> Work:
    """What `job` opens. If nobody waits for it any more when it is there, it is closed."""
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        job.add_done_callback(close_unwanted)
        raise


def close_unwanted(job: Future[Work]) -> None:
    if not job.cancelled() and not job.exception():
        job.result().close()


def large_stack_executor() -> ThreadPoolExecutor:
    """One thread with room for recursion. The size holds for threads that start while it is set."""
    before = threading.stack_size(TOKENIZER_STACK)
    executor = ThreadPoolExecutor(1, "tokenizer")
    executor.submit(threading.get_native_id).result()
    threading.stack_size(before)
    return executor
