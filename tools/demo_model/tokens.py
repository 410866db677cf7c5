"""Trains the byte-level BPE tokenizer and packs documents into one row of token ids."""

from collections.abc import Iterable
from itertools import islice

import numpy
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.demo_model.corpus import SPECIAL_TOKENS

N_VOCAB = 2048
_BATCH = 2000


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn merges from the texts; every byte stays in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    # The GPT-2 split, which llama.cpp knows as pre-tokenizer "gpt-2".
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def pack(tokenizer: Tokenizer, texts: Iterable[str]) -> numpy.ndarray:
    """Return the token ids of all texts, one text after the other."""
    rows: list[numpy.ndarray] = []
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        rows.extend(numpy.array(encoding.ids, dtype=numpy.uint16) for encoding in tokenizer.encode_batch(batch))
    return numpy.concatenate(rows)
