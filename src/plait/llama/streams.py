"""What the streams of one context hold: how many tokens each, and how their states are copied, exchanged, cut and kept.

`Streams` belongs to a `Context`, whose native memory it moves about. It knows lengths, never token ids. There are two
layouts: `SplitStreams` have memory of their own each, `UnifiedStreams` share one pool of cells.

A wrong argument to libllama ends the process, so every method checks its own and raises `ValueError` before the call.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plait.errors import GenerationFailed
from plait.llama.batch import Span
from plait.llama.cells import Cells, Layout, UnknownLayout, page_borders
from plait.llama.lib import native
from plait.llama.pool import Pool

NOWHERE = -1
"""No stream."""

_BYTE_POINTER = ctypes.POINTER(ctypes.c_uint8)


class StateRefused(GenerationFailed):
    """libllama would not copy, cut or take a stream's state."""


@dataclass(slots=True, eq=False)
class State:
    """A copy of what one stream holds. The buffer is kept and used again: fresh pages cost more than the copy."""

    buffer: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    n_bytes: int = 0
    n_tokens: int = 0

    def reserve(self, n_bytes: int) -> None:
        if n_bytes > len(self.buffer):
            self.buffer = np.empty(n_bytes + n_bytes // 4, np.uint8)
        self.n_bytes = n_bytes

    @property
    def data(self) -> NDArray[np.uint8]:
        return self.buffer[: self.n_bytes]

    def pointer(self) -> "ctypes._Pointer[ctypes.c_uint8]":
        return self.buffer.ctypes.data_as(_BYTE_POINTER)


class Streams(ABC):
    """`n_slots` streams with room for `n_ctx` tokens each, in the memory of the native context `handle`."""

    def __init__(self, handle: int, *, n_slots: int, n_ctx: int, can_trim: bool) -> None:
        self._handle = handle
        self._memory: int = native.llama_get_memory(handle)
        self._n_slots = n_slots
        self._n_ctx = n_ctx
        self._can_trim = can_trim
        self._held = [0] * n_slots
        self._states = State(), State()
        self._copied = NOWHERE
        """The stream whose state is in the first of these, and has not changed since."""
        self.layout: Layout | None = None
        """How states are cut and joined; None: they are saved and restored whole."""

    # ── what differs between the layouts ─────────────────────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def n_free(self) -> int:
        """Tokens that can be decoded before the memory is full, if no stream reaches its own end before that."""

    @property
    @abstractmethod
    def n_native(self) -> int:
        """How many streams libllama has."""

    @property
    @abstractmethod
    def n_held(self) -> int:
        """Cells that are taken; those that streams share count once."""

    @abstractmethod
    def native_id(self, stream: int) -> int:
        """What libllama calls a stream."""

    def named(self, spans: Sequence[Span]) -> Sequence[Span]:
        """The spans of a batch, with libllama's names of their streams."""
        return [(self.native_id(stream), start, tokens, wanted) for stream, start, tokens, wanted in spans]

    @abstractmethod
    def copy(self, src: int, dst: int, n: int) -> None:
        """Makes the first `n` tokens of `src` all that `dst` holds."""

    @abstractmethod
    def swap(self, a: int, b: int) -> None:
        """Exchanges what two streams hold; when one is empty, that is a move."""

    # ── what is the same ─────────────────────────────────────────────────────────────────────────────────────────

    def held(self, stream: int) -> int:
        """How many tokens a stream holds."""
        if not 0 <= stream < self._n_slots:
            raise ValueError(f"there is no stream {stream}; there are {self._n_slots}")
        return self._held[stream]

    def check(self, spans: Sequence[Span]) -> int:
        """The number of tokens in `spans`. Raises `ValueError` unless each is what its stream can take next."""
        held, n_slots, n_ctx = self._held, self._n_slots, self._n_ctx
        n_tokens = 0
        for stream, start, tokens, _ in spans:
            n = len(tokens)
            if not (0 <= stream < n_slots and start == held[stream] and 0 < n <= n_ctx - start):
                raise ValueError(self._complaint(stream, start, n))
            n_tokens += n
        if len({span[0] for span in spans}) < len(spans):
            raise ValueError("a stream has two spans in one batch")
        return n_tokens

    def _complaint(self, stream: int, start: int, n: int) -> str:
        held = self.held(stream)
        if start != held:
            return f"stream {stream} holds {held} tokens, so {start} is not its next position"
        return f"{n} more tokens for stream {stream}, which has room for 1 to {self._n_ctx - held}"

    def extend(self, spans: Sequence[Span]) -> None:
        """Notes that `spans` were computed."""
        for stream, start, tokens, _ in spans:
            self._hold(stream, start + len(tokens))

    def resynchronise(self) -> None:
        """Asks libllama what the streams hold, after a computation that ended halfway."""
        for stream in range(self._n_slots):
            self._hold(stream, native.llama_memory_seq_pos_max(self._memory, self.native_id(stream)) + 1)

    def trim(self, stream: int, n: int) -> None:
        """Keeps the first `n` tokens of a stream; 0 empties it."""
        self._check_kept(stream, n)
        if n == self._held[stream]:
            return
        if not native.llama_memory_seq_rm(self._memory, self.native_id(stream), n, -1):
            raise StateRefused(f"libllama would not cut stream {stream} back to {n} tokens")
        self._hold(stream, n)

    def save(self, stream: int, start: int) -> Cells:
        """What a stream holds from token `start` on, outside of it. Whole, if states cannot be cut."""
        n = self.held(stream)
        if not 0 <= start < n or (start and not self.layout):
            raise ValueError(f"there is nothing to save of stream {stream} from token {start} on; it holds {n}")
        state = self._save(stream, self._buffer())
        if self.layout is None:
            return Cells(None, 0, n, (state.data.copy(),))
        return self.layout.cut(state.data, n, start, n)

    def restore(self, stream: int, parts: Sequence[Cells]) -> None:
        """Makes `parts`, which begin at 0 and follow each other, all that a stream holds. Raises `StateRefused`, and
        the stream is empty then."""
        self.held(stream)
        n = sum(part.n_tokens for part in parts)
        if not 0 < n <= self._n_ctx:
            raise ValueError(f"{n} tokens for stream {stream}, which has room for 1 to {self._n_ctx}")
        state = self._buffer()
        if self.layout is None:
            (whole,) = parts
            state.reserve(whole.n_bytes)
            state.data[:] = whole.pages[0]
        else:
            state.reserve(self.layout.state_bytes(n))
            self.layout.join(parts, state.data)
        state.n_tokens = n
        self._load(stream, state)

    def loaded(self, start: int, n: int, payload: bytearray) -> Cells:
        """Cells whose bytes were read from a file. Raises `ValueError` when those are not of so many tokens."""
        data = np.frombuffer(payload, np.uint8)
        if self.layout is None:
            return Cells(None, start, n, (data,))
        if len(data) != n * self.layout.token_bytes:
            raise ValueError(f"{len(data)} bytes are not the cells of {n} tokens")
        borders = [(border - start) * self.layout.token_bytes for border in page_borders(start, start + n)]
        return Cells(self.layout, start, n, tuple(data[a:b].copy() for a, b in pairwise(borders)))

    def learn(self, stream: int) -> None:
        """Finds out how states are laid out, from a stream that holds some; if they cannot be cut and joined, they are
        saved whole. Tried out: what is cut in two and joined again must be what libllama writes of it."""
        if not self._can_trim:
            return
        n, before = self.held(stream), self._save(stream, self._buffer()).data.copy()
        try:
            self.layout = Layout.learn(before)
            upper, lower = self.save(stream, 0).split(n // 2)
            self.restore(stream, [upper, lower])
            is_same = np.array_equal(self._save(stream, self._buffer()).data, before)
        except (UnknownLayout, StateRefused):
            is_same = False
        if not is_same:
            self.layout = None

    @property
    def n_buffer_bytes(self) -> int:
        """Of the buffers that states pass through, used or not."""
        return sum(len(state.buffer) for state in self._states)

    def drop_buffers(self) -> None:
        """The next state gets new ones."""
        self._states, self._copied = (State(), State()), NOWHERE

    def state_bytes(self, stream: int) -> int:
        """The size of a stream's state."""
        n_bytes: int = native.llama_state_seq_get_size(self._handle, self.native_id(stream))
        return n_bytes

    def _hold(self, stream: int, n: int) -> None:
        self._held[stream] = n
        if stream == self._copied:
            self._copied = NOWHERE

    def _buffer(self) -> State:
        """The first buffer, for another state than it holds."""
        self._copied = NOWHERE
        return self._states[0]

    def _check_kept(self, stream: int, n: int) -> None:
        held = self.held(stream)
        if not 0 <= n <= held:
            raise ValueError(f"stream {stream} holds {held} tokens, not {n}")
        if not self._can_trim and 0 < n < held:
            raise ValueError("the model's memory is of all tokens at once and cannot be cut back")

    def _save(self, stream: int, state: State) -> State:
        state.n_tokens = self._held[stream]
        if state.n_tokens:
            state.reserve(self.state_bytes(stream))
            n_written = native.llama_state_seq_get_data(
                self._handle, state.pointer(), state.n_bytes, self.native_id(stream)
            )
            if n_written != state.n_bytes:
                raise StateRefused(f"libllama wrote {n_written} of the {state.n_bytes} bytes of stream {stream}")
        return state

    def _load(self, stream: int, state: State) -> None:
        self.trim(stream, 0)
        if not state.n_tokens:
            return
        id = self.native_id(stream)
        n_read = native.llama_state_seq_set_data(self._handle, state.pointer(), state.n_bytes, id)
        if n_read != state.n_bytes:
            native.llama_memory_seq_rm(self._memory, id, -1, -1)
            raise StateRefused(f"libllama read {n_read} of the {state.n_bytes} bytes for stream {stream}")
        self._hold(stream, state.n_tokens)


class SplitStreams(Streams):
    """Each stream has memory of its own: what is shared is copied, and nobody can take another's room."""

    @property
    def n_free(self) -> int:
        return self._n_slots * self._n_ctx

    @property
    def n_native(self) -> int:
        return self._n_slots

    @property
    def n_held(self) -> int:
        return sum(self._held)

    def native_id(self, stream: int) -> int:
        return stream

    def named(self, spans: Sequence[Span]) -> Sequence[Span]:
        return spans

    def copy(self, src: int, dst: int, n: int) -> None:
        self.held(dst)
        self._check_kept(src, n)
        if src != dst and n > 0:
            if src != self._copied:
                self._save(src, self._buffer())
            self._load(dst, self._first(self._states[0], n))
            self._copied = src
        self.trim(dst, n)

    def swap(self, a: int, b: int) -> None:
        self.held(a)
        if self.held(b) == 0 == self.held(a) or a == b:
            return
        state_a, state_b = self._save(a, self._buffer()), self._save(b, self._states[1])
        self._load(b, state_a)
        self._load(a, state_b)

    def _first(self, state: State, n: int) -> State:
        """The state of the first `n` tokens, where states can be cut; else that of all."""
        if self.layout is None or n == state.n_tokens:
            return state
        shorter = self._states[1]
        shorter.reserve(self.layout.state_bytes(n))
        self.layout.shorten(state.data, state.n_tokens, n, shorter.data)
        shorter.n_tokens = n
        return shorter


class UnifiedStreams(Streams):
    """All streams share one pool: a copy is a reference to the same cells, and a swap exchanges two names."""

    def __init__(self, handle: int, *, n_slots: int, n_ctx: int, n_cells: int, can_trim: bool) -> None:
        super().__init__(handle, n_slots=n_slots, n_ctx=n_ctx, can_trim=can_trim)
        self._ids = list(range(n_slots))
        self._pool = Pool(n_cells, n_slots)

    @property
    def n_free(self) -> int:
        return self._pool.n_free

    @property
    def n_native(self) -> int:
        return 1

    @property
    def n_held(self) -> int:
        return self._pool.n_taken

    def native_id(self, stream: int) -> int:
        return self._ids[stream]

    def copy(self, src: int, dst: int, n: int) -> None:
        self.held(dst)
        self._check_kept(src, n)
        if src == dst:
            self.trim(dst, n)
            return
        self.trim(dst, 0)
        if n > 0:
            native.llama_memory_seq_cp(self._memory, self._ids[src], self._ids[dst], 0, n)
            self._pool.share(src, dst, n)
            self._held[dst] = n

    def swap(self, a: int, b: int) -> None:
        self.held(a)
        self.held(b)
        self._ids[a], self._ids[b] = self._ids[b], self._ids[a]
        self._held[a], self._held[b] = self._held[b], self._held[a]
        self._pool.swap(a, b)

    def _hold(self, stream: int, n: int) -> None:
        super()._hold(stream, n)
        self._pool.resize(stream, n)
