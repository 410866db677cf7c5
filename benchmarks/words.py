"""Prompts that are the same each time: made-up words of the random models, one token each."""

import random

N_WORDS = 1500
"""All vocabularies have at least so many."""


def words(n: int, *seed: object) -> str:
    """A text of `n` tokens, besides the one that every prompt begins with. Other seeds, another text."""
    rng = random.Random(repr(seed))
    return " ".join(f"w{rng.randrange(N_WORDS)}" for _ in range(n))


def n_tokens(text: str) -> int:
    """What a server must count for a prompt: its words, and the token that begins a text."""
    return 1 + len(text.split())
