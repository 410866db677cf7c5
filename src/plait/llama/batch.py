"""The rows that one `llama_decode` computes, written into arrays that libllama reads in place.

A `Batch` owns its arrays; they are made once, for the largest batch. It says where each span's logits will be, and
knows nothing of what the streams hold.
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from plait.llama.lib import native

Span = tuple[int, int, list[int], bool]
"""Tokens that follow each other in one stream: the stream, the first one's position, the tokens, and whether the
logits after the last one are wanted."""


class Batch:
    """`n_rows` rows at most, of streams that hold `n_ctx` tokens at most, with ids below `n_vocab`."""

    def __init__(self, n_rows: int, n_ctx: int, n_vocab: int) -> None:
        self._n_vocab = n_vocab
        self._counting = np.arange(n_ctx, dtype=np.int32)
        self._tokens = np.zeros(n_rows, np.int32)
        self._positions = np.zeros(n_rows, np.int32)
        self._streams = np.zeros(n_rows, np.int32)
        self._wanted = np.zeros(n_rows, np.int8)
        self._n_streams = np.ones(n_rows, np.int32)
        self._stream_of = self._streams.ctypes.data + 4 * np.arange(n_rows, dtype=np.uintp)
        """Where the streams of each row are written: a row of libllama's may belong to several, of ours to one."""
        self.native = native.llama_batch(
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._n_streams.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._stream_of.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.rows: list[int] = []
        """The row of each span's last token."""
        self.outputs: list[int] = []
        """Which of the batch's logits belong to each span; -1: it wants none."""

    def fill(self, spans: Sequence[Span]) -> None:
        """Writes the rows. Raises `ValueError` for a token that the model does not have."""
        n = n_outputs = 0
        rows, outputs = [], []
        for stream, start, tokens, is_wanted in spans:
            self._write(n, stream, start, tokens)
            n += len(tokens)
            self._wanted[n - 1] = is_wanted
            rows.append(n - 1)
            outputs.append(n_outputs if is_wanted else -1)
            n_outputs += is_wanted
        if self._tokens[:n].view(np.uint32).max() >= self._n_vocab:
            raise ValueError(f"a token id is not in 0 ... {self._n_vocab - 1}")
        self.native.n_tokens = n
        self.rows, self.outputs = rows, outputs

    def _write(self, row: int, stream: int, start: int, tokens: list[int]) -> None:
        n = len(tokens)
        try:
            if n == 1:  # most spans of most batches: a number is written five times faster than a slice
                self._tokens[row] = tokens[0]
                self._positions[row] = start
                self._streams[row] = stream
                return
            self._tokens[row : row + n] = tokens
        except OverflowError as error:
            raise ValueError(f"a token id does not fit 32 bits: {error}") from error
        self._positions[row : row + n] = self._counting[start : start + n]
        self._streams[row : row + n] = stream
        self._wanted[row : row + n] = 0

    def forget(self) -> None:
        """There are no logits to ask for, until the next batch is computed."""
        self.rows, self.outputs = [], []
