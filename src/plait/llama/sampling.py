"""One choice's tokens, chosen one after the other by llama.cpp's own samplers from the logits that it is given.

A `Sampler` owns its native samplers and what they remember: the latest tokens, and the random numbers that are next.
Used by one thread at a time. It knows nothing of where logits come from.
"""

import ctypes
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from plait.errors import GenerationFailed
from plait.llama import links
from plait.llama.edits import Edits
from plait.llama.lib import SamplerPointer, native
from plait.llama.model import Model
from plait.protocol import Sampling

N_SEEDS: int = native.LLAMA_DEFAULT_SEED
"""Seeds count modulo this: as a seed it would ask libllama for a random one."""


class BadLogits(GenerationFailed):
    """The model computed what is not a number: its weights are broken, or something overflowed."""


class Sampler:
    """Chooses the tokens that follow `prompt`, or what `edits` remember, which are this sampler's from then on.

    Raises `BadRequest` for what cannot be done with this model."""

    def __init__(
        self, model: Model, sampling: Sampling, choice: int, prompt: Sequence[int] = (), edits: Edits | None = None
    ) -> None:
        assert sampling.seed is not None, "whoever takes requests draws the seed"
        seed = (sampling.seed + choice) % N_SEEDS
        self._n_vocab = model.n_vocab
        self._edits = edits or Edits(model, sampling, prompt)
        try:
            self._chain: SamplerPointer | None = links.chain(links.choosers(model, sampling, seed))
        except BaseException:
            self._edits.close()
            raise
        n_links: int = native.llama_sampler_chain_n(self._chain)
        self._takes_best = n_links == 1 and links.is_greedy(sampling)
        """The greatest logit is all that counts: it is found faster without libllama."""
        self._random: SamplerPointer | None = None
        """The last link, where it draws one number a token."""
        if not links.is_greedy(sampling) and not sampling.mirostat:
            self._random = native.llama_sampler_chain_get(self._chain, n_links - 1)

    @property
    def chain(self) -> SamplerPointer:
        """The native samplers that choose."""
        if self._chain is None:
            raise ValueError("the sampler is closed")
        return self._chain

    def choose(self, context: int, row: int, logits: NDArray[np.float32]) -> int:
        """The token that follows `logits`, which are those of a native context's `row`. Takes it in.

        Raises `BadLogits` when there is nothing to choose from.
        """
        chain = self.chain
        self._edits.apply(logits)
        try:
            token = int(logits.argmax())  # a NaN counts as the greatest
            if not math.isfinite(logits[token]):
                raise BadLogits("the model's logits are not numbers")
            if not self._takes_best:
                token = native.llama_sampler_sample(chain, context, row)
        finally:
            self._edits.undo(logits)
        if not 0 <= token < self._n_vocab:
            raise BadLogits(f"libllama chose {token}, which is not a token")
        self._edits.remember((token,))
        return token

    def accept(self, tokens: Sequence[int]) -> None:
        """Takes in output tokens that were chosen elsewhere, and draws the random numbers that choosing them drew.

        So a continuation goes on as if it had not been interrupted, unless xtc or mirostat chose: what those draw
        depends on probabilities that are not known any more.
        """
        self._edits.remember(tokens)
        if self._random is None:
            return
        only = native.llama_token_data(0, 0.0, 0.0)
        candidates = native.llama_token_data_array(ctypes.pointer(only), 1, -1, False)
        for _ in tokens:
            native.llama_sampler_apply(self._random, ctypes.byref(candidates))

    def close(self) -> None:
        """Frees the native samplers."""
        self._edits.close()
        if self._chain is not None:
            native.llama_sampler_free(self._chain)
            self._chain = self._random = None


def samplers(
    model: Model, sampling: Sampling, choices: Iterable[int], prompt: Sequence[int]
) -> Generator[Sampler, None, None]:
    """One for each of `choices`. The prompt is taken in once, however many they are."""
    with closing(Edits(model, sampling, prompt)) as edits:
        for choice in choices:
            yield Sampler(model, sampling, choice, edits=edits.copy())
