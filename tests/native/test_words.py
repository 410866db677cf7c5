"""The benchmarks' random models: each word of a prompt is a token, and what is written is read again as it was."""

from collections.abc import Iterator

import pytest

from benchmarks.random_model import SHAPES, write
from benchmarks.words import N_WORDS, n_tokens, words
from plait.config import Engine
from plait.llama.model import Model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("words") / "tiny.gguf"
    write(SHAPES["tiny"], "tiny", path)
    with Model(str(path), Engine()) as loaded:
        yield loaded


def test_each_word_is_one_token(model: Model) -> None:
    for text in (words(300), " ".join(f"w{i}" for i in range(N_WORDS))):
        assert len(model.tokenize(text, add_special=True, parse_special=False)) == n_tokens(text)


def test_what_was_written_is_read_as_the_same_tokens(model: Model) -> None:
    tokens = model.tokenize(words(300), add_special=False, parse_special=False)
    written = b"".join(model.pieces[token] for token in tokens).decode()
    assert model.tokenize(written.removeprefix(" "), add_special=False, parse_special=False) == tokens
