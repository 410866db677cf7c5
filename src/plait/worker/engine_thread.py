"""The thread that owns the model's context and the engine: it loads, decodes, and sends its pulse. Nothing else does.

It is the only thread that calls llama.cpp's kernels, so it keeps the process's priority while the others step back.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from msgspec import structs

from plait.config import Engine as Settings
from plait.config import format_bytes
from plait.disk import Shelf
from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.errors import BadRequest, ModelLoadFailed
from plait.llama.context import Context
from plait.llama.model import Model
from plait.protocol import Failed, Load, ModelInfo, PrefixCache, Protection, Ready, Stats
from plait.text.template import ChatTemplate
from plait.worker import judging, self_check
from plait.worker.bridge import Bridge, Drop, Empty, Stop, Submit
from plait.worker.prompt import Loaded
from plait.worker.session import Work
from plait.worker.storage import Storage

EX_SOFTWARE = 70
"""sysexits.h: an internal software error."""
DISK_SECONDS = 0.002
"""Between looks at the disk's answers, while nobody can do anything without them."""
CLOSING_SECONDS = 3.0
"""For writing what is known, when the worker ends."""
PULSE_SECONDS = 1.0
"""At least this often the gateway hears from this thread, busy or not."""

log = logging.getLogger("plait.worker")


class EngineThread(threading.Thread):
    """Owns model, context, engine and all running work. `is_ready` is called once, on this thread."""

    def __init__(
        self,
        load: Load,
        storage: Storage | None,
        protections: tuple[Protection, ...],
        bridge: Bridge,
        is_ready: Callable[[Loaded], None],
    ) -> None:
        super().__init__(name="engine", daemon=True)
        self.load = load
        self.storage = storage
        self.protections = protections
        self.bridge = bridge
        self.is_ready = is_ready
        self.working: dict[int, Work] = {}
        self.n_requests = 0
        self.n_cancelled = 0
        self.cancel_steps_max = 0
        self.n_rows = 0
        """Of the last step."""
        self.last_pulse = 0.0
        self.last_shape = (0, 0, 0, 0)

    def run(self) -> None:
        """Load, then serve until told to stop. A defect here ends the process: the gateway starts another."""
        try:
            self.serve(self.open())
        except ModelLoadFailed as error:
            self.bridge.say(Failed(0, error.code, error.message))
            self.bridge.flush()
        except Exception:
            log.exception("the engine thread failed")
            os._exit(EX_SOFTWARE)

    def open(self) -> Loaded:
        begin, settings = time.monotonic(), self.load.engine
        model = Model(self.load.path, settings)
        if model.squares_relu:
            self_check.run(settings)
        judged = judging.find_out(model, self.load)
        n_streams = judging.n_streams(settings, judged.verdict)
        context = Context(model, settings, n_ctx=settings.ctx_size, n_slots=n_streams, n_cells=settings.kv_cells)
        loaded = Loaded(model, context, chat_template(model), settings, judged.verdict)
        self.is_ready(loaded)
        info = describe(loaded, settings, time.monotonic() - begin)
        more = {"probed": judged.probed, "fingerprint": judged.fingerprint, "protections": self.protections}
        n_disk = self.storage.max_bytes if self.storage else 0
        self.bridge.say(Ready(structs.replace(info, cache_disk=n_disk, **more)))
        return loaded

    def serve(self, loaded: Loaded) -> None:
        settings, context = self.load.engine, loaded.context
        pace = Pace(settings.itl_target_ms / 1000, settings.batch_size, context.n_ubatch)
        self.shelf = self.storage.open() if self.storage else None
        rules = loaded.verdict if loaded.verdict.reproducible != "no" else None
        segments = Segments(
            context,
            max(0, settings.cache_ram) if settings.prefix_sharing else 0,
            self.shelf,
            keeps_exact=rules is not None and rules.blocks_together and rules.any_threads,
        )
        self.engine = Engine(
            context,
            settings.slots,
            pace,
            segments,
            shares=settings.prefix_sharing,
            is_continuous=settings.cont_batching,
            rules=rules,
        )
        self.pulse()
        self.bridge.flush()
        while self.obey():
            self.n_rows = self.engine.step()
            self.bridge.n_steps = self.engine.counts.steps
            self.pulse()
            self.bridge.flush()
        if self.shelf:
            self.close(self.shelf)
        context.close()
        loaded.model.close()

    def close(self, shelf: Shelf) -> None:
        """Write what is known, as far as there is time."""
        last, segments = time.monotonic() + CLOSING_SECONDS, self.engine.segments
        while not self.engine.close() and time.monotonic() < last:
            time.sleep(DISK_SECONDS)
        shelf.close(max(0.0, last - time.monotonic()))
        segments.exchange(may_go_on=lambda: False)  # no more is written; only what has been is heard of
        if n_left := segments.n_unwritten_bytes + shelf.n_queued_bytes:
            log.warning("%s of prefixes could not be written to disk before the end", format_bytes(n_left))

    def obey(self) -> bool:
        """Take what has come; when there is nothing to do, wait for it. False: stop."""
        for errand in self.bridge.errands(self.patience()):
            match errand:
                case Submit(work):
                    self.n_requests += 1
                    self.working[work.id] = work
                    work.begin()
                    self.engine.submit(work.group)
                case Drop(id, n_steps) if id in self.working:
                    self.drop(self.working.pop(id))
                    self.cancel_steps_max = max(self.cancel_steps_max, self.engine.counts.steps - n_steps)
                case Empty():
                    self.engine.forget()
                case Stop():
                    return False
        return True

    def patience(self) -> float:
        """Seconds to wait for errands."""
        if not self.engine.is_idle:
            return 0.0 if self.n_rows else DISK_SECONDS
        return 0.0 if self.engine.tidy() else PULSE_SECONDS

    def drop(self, work: Work) -> None:
        self.n_cancelled += not work.is_over
        self.engine.cancel(work.group)
        work.close()

    def pulse(self) -> None:
        """Say how it goes, when it changed or a second has passed."""
        slots, scheduler, now = self.engine.slots, self.engine.scheduler, time.monotonic()
        # A request may begin and end within one step: it is told of, too.
        n_steps = self.engine.counts.steps if self.engine.is_idle else 0
        shape = (slots.n_writing, slots.n_owned, scheduler.n_waiting, n_steps)
        if shape == self.last_shape and now - self.last_pulse < PULSE_SECONDS:
            return
        self.last_shape, self.last_pulse = shape, now
        self.working = {id: work for id, work in self.working.items() if not work.is_over}
        self.bridge.say(self.stats())

    def stats(self) -> Stats:
        slots, counts = self.engine.slots, self.engine.counts
        seconds, counts.step_seconds = counts.step_seconds, []
        rows, counts.step_rows = counts.step_rows, []
        return Stats(
            n_slots=len(slots.table),
            n_reading=slots.n_owned - slots.n_writing,
            n_writing=slots.n_writing,
            n_waiting=self.engine.scheduler.n_waiting,
            n_cells=self.engine.context.n_held,
            n_cells_max=self.load.engine.kv_cells or len(slots.table) * self.load.engine.ctx_size,
            prompt_tokens_total=counts.prompt_tokens,
            cached_tokens_total=counts.cached_tokens,
            output_tokens_total=counts.output_tokens,
            cache_ram_bytes=self.engine.segments.n_bytes,
            cache_buffer_bytes=self.engine.context.n_buffer_bytes,
            cache_disk_bytes=self.shelf.state.n_bytes if self.shelf else 0,
            requests_total=self.n_requests,
            cancelled_total=self.n_cancelled,
            cancel_steps_max=self.cancel_steps_max,
            preempted_total=counts.preempted,
            steps_total=counts.steps,
            step_seconds=seconds,
            step_rows=rows,
        )


def chat_template(model: Model) -> ChatTemplate | None:
    """The model's template. One that cannot be read is as good as none, and said so in the log."""
    if model.chat_template is None:
        return None
    try:
        return ChatTemplate(model.chat_template, model.control_texts, model.bos_text, model.eos_text)
    except BadRequest as error:
        log.warning("%s; chat requests will be refused", error.message)
        return None


def prefix_cache(context: Context) -> PrefixCache:
    """How prefixes of this model can be kept outside of the context."""
    if context.can_cut:
        return "tokens"
    return "snapshots"


def describe(loaded: Loaded, settings: Settings, seconds: float) -> ModelInfo:
    model, context, template, _, verdict = loaded
    return ModelInfo(
        description=model.description,
        n_params=model.n_params,
        model_bytes=model.model_bytes,
        kv_bytes=context.kv_bytes,
        n_vocab=model.n_vocab,
        n_ctx=context.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_slots=settings.slots,
        kv_layout="unified" if settings.kv_cells else "split",
        prefix_cache=prefix_cache(context),
        cache_ram=settings.cache_ram if settings.prefix_sharing else 0,
        has_chat_template=template is not None,
        n_threads=context.n_threads,
        load_seconds=seconds,
        verdict=verdict,
    )
