"""What is done to the logits before one is chosen: biases and penalties.

They change few of them: those of tokens that a bias names, or that the text has. llama.cpp's penalties look for each
of 150,000 candidates in the text, which takes longer than all other sampling. Shown only the tokens that they could
change, they do the same, to the same bits.
"""

import copy
import ctypes
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from plait.llama import links
from plait.llama.lib import SamplerPointer, native
from plait.llama.model import Model
from plait.protocol import Sampling

_CANDIDATE = np.dtype([("token", np.int32), ("logit", np.float32), ("probability", np.float32)])
"""libllama's `llama_token_data`."""


class Candidates:
    """A growing set of tokens, whose logits a native sampler may change."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._where = np.zeros(0, np.intp)
        self._data = np.zeros(0, _CANDIDATE)
        self._native = native.llama_token_data_array()

    def add(self, tokens: Iterable[int]) -> None:
        n = len(self._known)
        new = list(set(tokens) - self._known)
        if not new:
            return
        self._known.update(new)
        if len(self._known) > len(self._data):
            self._grow(2 * len(self._known) + 64)
        self._where[n : len(self._known)] = new
        self._data["token"][n : len(self._known)] = new

    def apply(self, sampler: SamplerPointer, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lets `sampler` change the logits of these tokens in `row`. Returns what they were."""
        n = len(self._known)
        where, logits = self._where[:n], self._data["logit"][:n]
        before: NDArray[np.float32] = row[where]
        logits[:] = before
        self._native.size = n
        native.llama_sampler_apply(sampler, ctypes.byref(self._native))
        row[where] = logits
        return before

    def undo(self, before: NDArray[np.float32], row: NDArray[np.float32]) -> None:
        row[self._where[: len(self._known)]] = before

    def copy(self) -> "Candidates":
        """The same tokens; each grows on its own."""
        twin = Candidates()
        twin._known = set(self._known)
        twin._where = self._where.copy()
        twin._hold(self._data.copy())
        return twin

    def _grow(self, n: int) -> None:
        n_more = n - len(self._data)
        self._where = np.pad(self._where, (0, n_more))
        self._hold(np.concatenate([self._data, np.zeros(n_more, _CANDIDATE)]))

    def _hold(self, data: NDArray[np.void]) -> None:
        self._data = data
        pointer = self._data.ctypes.data_as(ctypes.POINTER(native.llama_token_data))
        self._native = native.llama_token_data_array(pointer, 0, -1, False)


class Edits:
    """The biases and penalties of one sampler. Owns the native penalties until `close`.

    Raises `BadRequest` for what cannot be done with this model."""

    def __init__(self, model: Model, sampling: Sampling, prompt: Sequence[int]) -> None:
        links.check(model, sampling)
        biases = links.biases(model, sampling)
        n_context = max(model.n_ctx_train, len(prompt))
        self._biased = np.array(list(biases), np.intp)
        self._bias = np.array(list(biases.values()), np.float32)
        self._window = max(links.penalties_window(sampling, n_context), links.dry_window(sampling, n_context))
        self._candidates = Candidates()
        self._penalties: SamplerPointer | None = None
        if self._window:
            self._penalties = links.chain(links.penalties(model, sampling, n_context))
            self.remember(prompt)

    def copy(self) -> "Edits":
        """Remembers the same, without a native call per token, and goes on apart."""
        twin = copy.copy(self)
        twin._candidates = self._candidates.copy()
        twin._penalties = links.clone(self._penalties) if self._penalties else None
        return twin

    def apply(self, row: NDArray[np.float32]) -> None:
        """Changes the logits in place, until `undo`: there may be other choices from the same."""
        if len(self._biased):
            self._unbiased: NDArray[np.float32] = row[self._biased]
            row[self._biased] = self._unbiased + self._bias
        if self._penalties:
            self._unpenalized = self._candidates.apply(self._penalties, row)

    def undo(self, row: NDArray[np.float32]) -> None:
        """Puts the logits back that the last `apply` changed."""
        if self._penalties:
            self._candidates.undo(self._unpenalized, row)
        if len(self._biased):
            row[self._biased] = self._unbiased

    def remember(self, tokens: Sequence[int]) -> None:
        """The text goes on with `tokens`."""
        if not self._penalties:
            return
        recent = tokens[-self._window :]
        self._candidates.add(recent)
        for token in recent:
            native.llama_sampler_accept(self._penalties, token)

    def close(self) -> None:
        """Frees the native penalties."""
        if self._penalties:
            native.llama_sampler_free(self._penalties)
            self._penalties = None
