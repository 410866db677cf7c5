"""Losses of models that only count, to set beside the network's."""

import numpy


def unigram_loss(train: numpy.ndarray, held_out: numpy.ndarray, n_vocab: int) -> float:
    """Return nats per token when each token has its training frequency."""
    counts = numpy.bincount(train, minlength=n_vocab) + 1.0
    return float(-numpy.log(counts / counts.sum())[held_out].mean())


def bigram_loss(train: numpy.ndarray, held_out: numpy.ndarray, n_vocab: int) -> float:
    """Return nats per token when each token depends on the one before it.

    Pairs are smoothed towards the single tokens' frequencies.
    """
    singles = numpy.bincount(train, minlength=n_vocab) + 1.0
    pair_index = train[:-1].astype(numpy.int64) * n_vocab + train[1:]
    pairs = numpy.bincount(pair_index, minlength=n_vocab**2).reshape(n_vocab, n_vocab)
    smoothed = pairs + 2.0 * singles / singles.sum()
    share = smoothed / smoothed.sum(axis=1, keepdims=True)
    return float(-numpy.log(share[held_out[:-1], held_out[1:]]).mean())
