"""A stream's state outside of its context: cut out by tokens, kept in pages, and joined again.

What libllama writes for one sequence (`llama_state_seq_get_data`; `state_write` in llama.cpp's llama-kv-cache.cpp):

    8 bytes    what comes, and whose it is
    u32        number of streams; all but one are empty
    u32        number of cells n; of an empty stream, this is all
    n x 12     position, 1, sequence
    u32 u32    whether V is transposed, number of layers
    then K of each layer, then V of each layer:  i32 type, u64 bytes of a row, n rows

The layout is llama.cpp's own and may change: `Layout.learn` reads it off a real state, and `streams` tries it before it
relies on it. Bytes in, bytes out; no native code here.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

PAGE = 64
"""Tokens of a page, which begins at a multiple of it unless its cells do not: where prompts mostly part, too."""

Bytes = NDArray[np.uint8]

_HEAD = 8
_CELL = struct.Struct("<iIi")
_COUNT = struct.Struct("<I")
_LAYERS = struct.Struct("<II")
_TENSOR = struct.Struct("<iQ")


class UnknownLayout(ValueError):
    """A state is not laid out as described above."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one context writes its states."""

    head: bytes
    n_streams: int
    tensors: tuple[tuple[int, int], ...]
    """Type and bytes of a row: K of each layer, then V of each layer."""

    @classmethod
    def learn(cls, state: Bytes) -> "Layout":
        """Reads it off the state of a sequence. Raises `UnknownLayout`."""
        data = state.tobytes()
        try:
            (n_streams,), at = _COUNT.unpack_from(data, _HEAD), _HEAD + _COUNT.size
            counts: list[int] = []
            tensors: tuple[tuple[int, int], ...] = ()
            for _ in range(n_streams):
                (n,), at = _COUNT.unpack_from(data, at), at + _COUNT.size
                if n:
                    counts.append(n)
                    at, tensors = _read_tensors(data, at + n * _CELL.size, n)
        except struct.error as error:
            raise UnknownLayout(f"the state ends too soon: {error}") from error
        if at != len(data) or len(counts) != 1:
            raise UnknownLayout(f"{len(data) - at} bytes too many, {len(counts)} streams with cells")
        return cls(data[:_HEAD], n_streams, tensors)

    @property
    def token_bytes(self) -> int:
        """K and V of one token in all layers."""
        return sum(n_bytes for _, n_bytes in self.tensors)

    def state_bytes(self, n: int) -> int:
        """The size of a state of `n` tokens, at least one."""
        return self._rows_at(n)[-1] + n * self.tensors[-1][1] + _COUNT.size * (self.n_streams - 1)

    def cut(self, state: Bytes, n_held: int, start: int, end: int) -> "Cells":
        """Copies tokens `start` … `end` out of a state of `n_held` tokens."""
        state = self._from_own_stream(state)
        order = self._order(state, n_held)
        pages = []
        for a, b in pairwise(page_borders(start, end)):
            page = np.empty((b - a) * self.token_bytes, np.uint8)
            for rows, part in self._parts(state, n_held, page, b - a):
                part[:] = rows[a:b] if order is None else rows[order[a:b]]
            pages.append(page)
        return Cells(self, start, end - start, tuple(pages))

    def shorten(self, state: Bytes, n_held: int, n: int, shorter: Bytes) -> None:
        """Makes `shorter` the state of the first `n` of the `n_held` tokens in `state`, by one copy a tensor."""
        state = self._from_own_stream(state)
        order = self._order(state, n_held)
        self._write_frame(shorter, n)
        for long_at, at, (_, row_bytes) in zip(self._rows_at(n_held), self._rows_at(n), self.tensors, strict=True):
            rows = state[long_at : long_at + n_held * row_bytes].reshape(n_held, row_bytes)
            shorter[at : at + n * row_bytes].reshape(n, row_bytes)[:] = rows[:n] if order is None else rows[order[:n]]

    def join(self, parts: "Sequence[Cells]", state: Bytes) -> None:
        """Makes `state` that of all the tokens of `parts`, which begin at 0 and follow each other."""
        n = sum(part.n_tokens for part in parts)
        self._write_frame(state, n)
        at = 0
        for page, n_page in (page for part in parts for page in part.counted()):
            for rows, part_of_page in self._parts(state, n, page, n_page):
                rows[at : at + n_page] = part_of_page
            at += n_page

    def split_page(self, page: Bytes, n_page: int, n: int) -> tuple[Bytes, Bytes]:
        """Copies of a page's first `n` tokens, and of the rest."""
        upper, lower = np.empty(n * self.token_bytes, np.uint8), np.empty((n_page - n) * self.token_bytes, np.uint8)
        at = 0
        for _, row_bytes in self.tensors:
            rows = page[at * n_page : (at + row_bytes) * n_page].reshape(n_page, row_bytes)
            upper[at * n : (at + row_bytes) * n].reshape(n, row_bytes)[:] = rows[:n]
            lower[at * (n_page - n) : (at + row_bytes) * (n_page - n)].reshape(n_page - n, row_bytes)[:] = rows[n:]
            at += row_bytes
        return upper, lower

    def _parts(self, state: Bytes, n: int, page: Bytes, n_page: int) -> Iterator[tuple[Bytes, Bytes]]:
        """Of each tensor: its rows in a state of `n` tokens, and in a page of `n_page`."""
        in_page = 0
        for at, (_, row_bytes) in zip(self._rows_at(n), self.tensors, strict=True):
            n_bytes = row_bytes * n_page
            rows = state[at : at + n * row_bytes].reshape(n, row_bytes)
            yield rows, page[in_page : in_page + n_bytes].reshape(n_page, row_bytes)
            in_page += n_bytes

    def _rows_at(self, n: int) -> list[int]:
        """Where each tensor's rows begin in a state of `n` tokens whose own stream comes first."""
        first = _HEAD + 2 * _COUNT.size + n * _CELL.size + _LAYERS.size + _TENSOR.size
        sizes = (n * n_bytes + _TENSOR.size for _, n_bytes in self.tensors[:-1])
        return list(accumulate(sizes, initial=first))

    def _write_frame(self, state: Bytes, n: int) -> None:
        """All but the rows."""
        at = _HEAD + 2 * _COUNT.size
        state[:_HEAD] = np.frombuffer(self.head, np.uint8)
        _COUNT.pack_into(state.data, _HEAD, self.n_streams)
        _COUNT.pack_into(state.data, _HEAD + _COUNT.size, n)
        cells = state[at : at + n * _CELL.size].view(np.int32).reshape(n, 3)
        cells[:, 0], cells[:, 1], cells[:, 2] = np.arange(n), 1, 0
        _LAYERS.pack_into(state.data, at + n * _CELL.size, 0, len(self.tensors) // 2)
        for rows_at, tensor in zip(self._rows_at(n), self.tensors, strict=True):
            _TENSOR.pack_into(state.data, rows_at - _TENSOR.size, *tensor)
        state[len(state) - _COUNT.size * (self.n_streams - 1) :] = 0

    def _from_own_stream(self, state: Bytes) -> Bytes:
        """Leaves out the empty streams that come first, so that all lies where `_rows_at` says (but for the head)."""
        counts = state[_HEAD + _COUNT.size :][: _COUNT.size * self.n_streams].view(np.uint32)
        return state[_COUNT.size * int(np.argmax(counts > 0)) :]

    def _order(self, state: Bytes, n: int) -> NDArray[np.intp] | None:
        """Which cell has which position; None when they lie in order, as they mostly do."""
        at = _HEAD + 2 * _COUNT.size
        positions = state[at : at + n * _CELL.size].view(np.int32)[::3]
        if np.array_equal(positions, np.arange(n)):
            return None
        order = np.argsort(positions)
        if not np.array_equal(positions[order], np.arange(n)):
            raise UnknownLayout("a state has a position twice, or not at all")
        return order


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """What a context remembers of tokens `start` … `start + n_tokens`. Never changes; every page has its own memory,
    so that what is let go is free."""

    layout: Layout | None
    """None: one page that is a state as libllama wrote it, and cannot be split."""
    start: int
    n_tokens: int
    pages: tuple[Bytes, ...]

    @property
    def n_bytes(self) -> int:
        return sum(len(page) for page in self.pages)

    def buffers(self) -> list[memoryview]:
        """Their bytes, for a file."""
        return [page.data for page in self.pages]

    def counted(self) -> Iterator[tuple[Bytes, int]]:
        """Each page with its number of tokens."""
        borders = page_borders(self.start, self.start + self.n_tokens)
        yield from zip(self.pages, (b - a for a, b in pairwise(borders)), strict=True)

    def split(self, n: int) -> "tuple[Cells, Cells]":
        """The first `n` tokens, and the rest; only a page that has of both is copied."""
        if self.layout is None or not 0 < n < self.n_tokens:
            raise ValueError(f"cells of {self.n_tokens} tokens cannot be split at {n}")
        upper, lower, at = [], [], 0
        for page, n_page in self.counted():
            if at < n < at + n_page:
                left, right = self.layout.split_page(page, n_page, n - at)
                upper.append(left)
                lower.append(right)
            else:
                (upper if at < n else lower).append(page)
            at += n_page
        return (
            Cells(self.layout, self.start, n, tuple(upper)),
            Cells(self.layout, self.start + n, self.n_tokens - n, tuple(lower)),
        )


def page_borders(start: int, end: int) -> list[int]:
    """Where the pages of tokens `start` … `end` begin, and where the last one ends."""
    return [start, *range(start - start % PAGE + PAGE, end, PAGE), end]


def _read_tensors(data: bytes, at: int, n: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """What lies behind the cells of a stream: where it ends, and its tensors."""
    (is_transposed, n_layers), at = _LAYERS.unpack_from(data, at), at + _LAYERS.size
    if is_transposed or not 0 < n_layers < 2**16:
        raise UnknownLayout(f"V is transposed: {is_transposed}; layers: {n_layers}")
    tensors: list[tuple[int, int]] = []
    for _ in range(2 * n_layers):
        kind, n_bytes = _TENSOR.unpack_from(data, at)
        tensors.append((kind, n_bytes))
        at += _TENSOR.size + n * n_bytes
    return at, tuple(tensors)
