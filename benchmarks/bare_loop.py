"""The kernels alone, as somebody would use them who has all prompts at hand: a batch filled by hand, `llama_decode`,
and the greatest logit. Nothing of the engine or of its context's bookkeeping is in it.

A `BareLoop` borrows a native context whose streams are empty, and leaves them so. It owns its batch until `close`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from plait.llama.lib import native

Row = tuple[int, int, int, bool]
"""Token, position, stream, and whether its logits are wanted."""


class BareLoop:
    """Greedy texts from unrelated prompts, of which each has a stream."""

    def __init__(self, context: int, n_vocab: int, n_ubatch: int) -> None:
        self.context, self.n_vocab, self.n_ubatch = context, n_vocab, n_ubatch
        self.batch = native.llama_batch_init(n_ubatch, 0, 1)

    def close(self) -> None:
        native.llama_batch_free(self.batch)

    def write(self, prompts: Sequence[Sequence[int]], n_output: int) -> list[list[int]]:
        """As many tokens for each: the prompts first, then all streams' rows together, ascending."""
        texts = [[token] for token in self.read(prompts)]
        for i in range(n_output - 1):
            rows = [(text[-1], len(prompts[stream]) + i, stream, True) for stream, text in enumerate(texts)]
            for text, token in zip(texts, self.decode(rows), strict=True):
                text.append(token)
        for stream in range(len(prompts)):
            native.llama_memory_seq_rm(native.llama_get_memory(self.context), stream, -1, -1)
        return texts

    def read(self, prompts: Sequence[Sequence[int]]) -> Iterator[int]:
        """Each prompt's next token. A call takes as many whole prompts as there is room for; none is longer."""
        rows: list[Row] = []
        for stream, prompt in enumerate(prompts):
            if len(rows) + len(prompt) > self.n_ubatch:
                yield from self.decode(rows)
                rows = []
            last = len(prompt) - 1
            rows += [(token, position, stream, position == last) for position, token in enumerate(prompt)]
        yield from self.decode(rows)

    def decode(self, rows: Sequence[Row]) -> list[int]:
        """The best token behind each row that wants one."""
        batch = self.batch
        for i, (token, position, stream, wants) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wants
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
        batch.n_tokens = len(rows)
        assert native.llama_decode(self.context, batch) == 0
        return [self.best(i) for i, (*_, wants) in enumerate(rows) if wants]

    def best(self, i: int) -> int:
        logits = native.llama_get_logits_ith(self.context, i)
        return int(np.ctypeslib.as_array(logits, (self.n_vocab,)).argmax())
