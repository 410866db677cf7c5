"""The memory that sequences live in, and the passes that extend it. The only place that calls `llama_decode`.

A `Context` owns the native context and is used by one thread at a time. Its memory has streams; each holds the first
tokens of one sequence. It knows how many, not which.

A wrong argument to libllama ends the process, so every method checks its own and raises `ValueError` before the call.
"""

import ctypes
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from plait import config
from plait.cores import n_cores, n_processors
from plait.errors import GenerationFailed, ModelLoadFailed
from plait.llama import adapters, lib
from plait.llama.batch import Batch, Span
from plait.llama.cells import Cells
from plait.llama.lib import native
from plait.llama.model import Model
from plait.llama.owning import Owner
from plait.llama.sampling import Sampler
from plait.llama.squared_relu import SquaredReLU
from plait.llama.streams import SplitStreams, Streams, UnifiedStreams

_STREAM_STEP = 256
"""libllama makes the length of a stream a multiple of this."""

_CELL_HEADER = 12
"""Bytes of a token's state that are not its KV: position, number of sequences, sequence."""

_INEXACT = -100
"""Not one of llama_decode's."""

_FAILURES = {
    _INEXACT: "libllama's graph is not that of BitNet, or it was not shown",
    1: "there is no room for the batch in the context",
    2: "the computation was aborted",
    -1: "libllama does not accept the batch",
    -2: "memory for the computation could not be had",
    -3: "the computation failed",
}


class DecodeFailed(GenerationFailed):
    """libllama computed less than it was asked for. The streams hold what `held` says now."""

    def __init__(self, result: int) -> None:
        super().__init__(f"{_FAILURES.get(result, 'an unknown failure')} (llama_decode: {result})")


class Context(Owner):
    """`n_slots` streams of at least `n_ctx` tokens. Raises `ModelLoadFailed` when they cannot be had."""

    gate: ClassVar[type[SquaredReLU]] = SquaredReLU
    """What makes a model with squared ReLU compute it."""

    def __init__(self, model: Model, engine: config.Engine, *, n_ctx: int, n_slots: int, n_cells: int = 0) -> None:
        """`n_cells`: the streams share a pool of so many tokens; 0: each has its own."""
        params = _params(engine, n_ctx, n_slots, n_cells)
        self.squared_relu = self.gate(model.n_layer, params) if model.squares_relu else None
        handle = _create(model, params)
        model.n_contexts += 1
        self._model = model
        self._handle: int | None = handle
        self.n_slots = n_slots
        self.n_ctx: int = native.llama_n_ctx_seq(handle)
        """Tokens that each stream has room for."""
        self.n_batch: int = native.llama_n_batch(handle)
        self.n_ubatch: int = native.llama_n_ubatch(handle)
        self.n_threads: int = native.llama_n_threads(handle)
        self._n_threads_batch: int = native.llama_n_threads_batch(handle)
        self._n_threads_now = self.n_threads, self._n_threads_batch
        self._scales_now: tuple[float, ...] = ()
        self.can_trim = model.has_plain_memory
        """Whether a stream can be cut back to any of its beginnings; if not, it is copied whole or emptied."""
        self.n_cells: int = native.llama_n_ctx(handle)
        """Tokens that all streams together have room for."""
        self._streams: Streams
        if n_cells:
            self.n_ctx = min(n_ctx, self.n_ctx)
            self._streams = UnifiedStreams(
                handle, n_slots=n_slots, n_ctx=self.n_ctx, n_cells=self.n_cells, can_trim=self.can_trim
            )
        else:
            self._streams = SplitStreams(handle, n_slots=n_slots, n_ctx=self.n_ctx, can_trim=self.can_trim)
        self._batch = Batch(self.n_batch, self.n_ctx, model.n_vocab)
        self._logits_address = 0
        self._logits = np.zeros((0, 0), np.float32)
        try:
            adapters.apply(handle, model.adapters)
            self.kv_bytes = self._warm_up()
        except GenerationFailed as error:
            self.close()
            raise ModelLoadFailed(f"not even the first token can be computed: {error.message}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees all streams."""
        if self._handle is not None:
            self._batch.forget()
            native.llama_free(self._handle)
            self._handle = None
            self._model.n_contexts -= 1
            if self.squared_relu:
                self.squared_relu.close()

    @property
    def handle(self) -> int:
        """The native context, for calls."""
        if self._handle is None:
            raise ValueError("the context is closed")
        return self._handle

    @property
    def _memory(self) -> Streams:
        """The streams, to do something to them: that needs an open context."""
        if self._handle is None:
            raise ValueError("the context is closed")
        return self._streams

    def decode(self, spans: Sequence[Span]) -> None:
        """Computes spans of tokens, each behind what its stream holds. When it returns, the logits are there.

        Fastest with streams in ascending order and without gaps: elsewhere libllama cuts the batch.
        """
        handle = self.handle
        n = self._streams.check(spans)
        if not 0 < n <= self.n_batch:
            raise ValueError(f"a batch of {n} tokens; it takes 1 to {self.n_batch}")
        self._batch.fill(self._streams.named(spans))
        if self.squared_relu:
            self.squared_relu.begin()
        result: int = native.llama_decode(handle, self._batch.native)
        if self.squared_relu and not self.squared_relu.is_done:
            result = result or _INEXACT
        if result:
            self._batch.forget()
            self._streams.resynchronise()
            raise DecodeFailed(result)
        self._streams.extend(spans)
        self._view_logits(handle)

    def use_threads(self, *wishes: int) -> None:
        """From the next decode on, as many threads as the largest wish, as far as there are cores; 0 is a wish for as
        many as the settings say."""
        most = max(n_processors(), self.n_threads)
        n, n_batch = (max(min(wish, most) or own for wish in wishes) for own in (self.n_threads, self._n_threads_batch))
        if (n, n_batch) != self._n_threads_now:
            native.llama_set_n_threads(self.handle, n, n_batch)
            self._n_threads_now = n, n_batch

    def use_adapters(self, scales: tuple[float, ...]) -> None:
        """From the next decode on, so much of each of the model's adapters; (): as the settings say. After a change,
        libllama plans the memory of its graphs anew, which takes milliseconds."""
        if scales != self._scales_now:
            loaded = self._model.adapters
            pairs = zip(loaded, scales, strict=True) if scales else ()
            adapters.apply(self.handle, [each._replace(scale=scale) for each, scale in pairs] or loaded)
            self._scales_now = scales

    def sample(self, sampler: Sampler, span: int) -> int:
        """The token that `sampler` chooses after the last decode's span of that number, and takes in.

        Raises `BadLogits` when there is nothing to choose from.
        """
        logits = self._row(span)
        return sampler.choose(self.handle, self._batch.rows[span], logits)

    def logits(self, span: int) -> NDArray[np.float32]:
        """A copy of the logits after the last decode's span of that number."""
        return self._row(span).copy()

    def held(self, stream: int) -> int:
        """How many tokens a stream holds."""
        return self._streams.held(stream)

    def trim(self, stream: int, n: int) -> None:
        """Keeps the first `n` tokens of a stream; 0 empties it."""
        self._memory.trim(stream, n)

    def copy(self, src: int, dst: int, n: int) -> None:
        """Makes the first `n` tokens of `src` all that `dst` holds. Without `can_trim`, `n` is all that `src` holds."""
        self._memory.copy(src, dst, n)

    def swap(self, a: int, b: int) -> None:
        """Exchanges what two streams hold; when one is empty, that is a move."""
        self._memory.swap(a, b)

    @property
    def can_cut(self) -> bool:
        """Whether what is saved can be of any range of tokens; if not, it is of all that a stream holds."""
        return self._streams.layout is not None

    @property
    def state_shape(self) -> str:
        """What of this context a state depends on that is saved whole: libllama writes the number of streams into it,
        and takes no other. Empty with `can_cut`."""
        return "" if self.can_cut else f"{self._streams.n_native} streams"

    @property
    def n_free(self) -> int:
        """Tokens that can be decoded before the memory is full, if no stream reaches its own end before that."""
        return self._streams.n_free

    @property
    def n_held(self) -> int:
        """Cells that are taken; those that streams share count once."""
        return self._streams.n_held

    @property
    def n_buffer_bytes(self) -> int:
        """What states are moved through takes so much memory besides the streams."""
        return self._streams.n_buffer_bytes

    def drop_buffers(self) -> None:
        """Gives that memory back; the next state that is moved takes as much as it needs."""
        self._streams.drop_buffers()

    def save(self, stream: int, start: int) -> Cells:
        """What a stream holds from token `start` on, outside of it. Without `can_cut`, `start` is 0."""
        return self._memory.save(stream, start)

    def restore(self, stream: int, parts: Sequence[object]) -> None:
        """Makes `parts`, which are `Cells` that begin at 0 and follow each other, all that a stream holds. Raises
        `StateRefused`, and the stream is empty then."""
        cells = [part for part in parts if isinstance(part, Cells)]
        if len(cells) < len(parts):
            raise ValueError("these are no cells of a context's")
        self._memory.restore(stream, cells)

    def loaded(self, start: int, n: int, payload: bytearray) -> Cells:
        """Cells whose bytes were read from a file. Raises `ValueError` when those are not of so many tokens."""
        return self._memory.loaded(start, n, payload)

    def _row(self, span: int) -> NDArray[np.float32]:
        outputs = self._batch.outputs
        if not 0 <= span < len(outputs) or outputs[span] < 0:
            raise ValueError(f"the last batch has no logits for span {span}")
        row: NDArray[np.float32] = self._logits[outputs[span]]
        return row

    def _view_logits(self, handle: int) -> None:
        """Waits for the logits and looks at them in place; they lie where they lay after the last batch."""
        pointer = native.llama_get_logits(handle)
        address = ctypes.addressof(pointer.contents)
        if address != self._logits_address:
            self._logits = np.ctypeslib.as_array(pointer, (self.n_slots, self._model.n_vocab))
            self._logits_address = address

    def _warm_up(self) -> int:
        """Touches all weights, so that the first request does not wait for them. Tells the size of the memory."""
        self.decode([(0, 0, [0], True)])
        first = self._streams.state_bytes(0)
        self.decode([(0, 1, [0], True)])
        per_token: int = self._streams.state_bytes(0) - first
        self._streams.learn(0)
        self.trim(0, 0)
        self._batch.forget()
        if self.can_trim:
            return self.n_cells * (per_token - _CELL_HEADER)
        return self.n_slots * (first + (self.n_ctx - 1) * per_token)


def _params(engine: config.Engine, n_ctx: int, n_slots: int, n_cells: int) -> native.llama_context_params:
    n_total = _rounded(n_cells) if n_cells else _rounded(n_ctx) * n_slots
    if not 0 < n_total < 2**31:
        raise ModelLoadFailed(f"{n_slots} slots of {n_ctx} tokens; their sum must be 1 to {2**31 - 1}")
    params: native.llama_context_params = native.llama_context_default_params()
    params.n_ctx = n_total
    params.n_seq_max = params.n_outputs_max = n_slots
    params.kv_unified = n_cells > 0
    params.n_batch = max(engine.batch_size, n_slots)
    params.n_ubatch = engine.ubatch_size
    params.n_threads, params.n_threads_batch = n_threads(engine)
    params.type_k = lib.CACHE_TYPES[engine.cache_type_k]
    params.type_v = lib.CACHE_TYPES[engine.cache_type_v]
    params.rope_freq_base, params.rope_freq_scale = engine.rope_freq_base, engine.rope_freq_scale
    if engine.cache_type_k == engine.cache_type_v == "f32":
        # Flash attention would round what it reads to half floats.
        params.flash_attn_type = native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    else:
        params.flash_attn_type = native.LLAMA_FLASH_ATTN_TYPE_AUTO  # on, unless a device lacks the kernel
    params.swa_full = True  # a sliding window that forgets could not be cut back
    params.offload_kqv = True
    params.no_perf = True
    return params


def _rounded(n: int) -> int:
    return -(-n // _STREAM_STEP) * _STREAM_STEP


def _create(model: Model, params: native.llama_context_params) -> int:
    with lib.errors_heard() as errors:
        handle: int | None = native.llama_init_from_model(model.handle, params)
    if handle is None:
        raise ModelLoadFailed(f"no context: {errors[0] if errors else 'libllama gives no reason'}")
    if native.llama_get_memory(handle) is None:
        native.llama_free(handle)
        raise ModelLoadFailed("the model remembers nothing, so it cannot continue a text")
    return handle


def n_threads(engine: config.Engine) -> tuple[int, int]:
    """How many threads decode, and how many read prompts."""
    n = engine.threads or n_cores()
    return n, engine.threads_batch or n
