"""Prompts for benchmarks."""

from benchmarks.words import n_tokens, words


def test_a_prompt_is_the_same_each_time() -> None:
    assert words(20, "a", 1) == words(20, "a", 1)


def test_other_seeds_make_other_prompts() -> None:
    assert len({words(20, "a", i) for i in range(100)}) == 100


def test_a_word_is_a_token() -> None:
    assert n_tokens(words(20)) == 21
