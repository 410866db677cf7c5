"""Models that are written once per run, and contexts on them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plait import config
from plait.llama.context import Context
from plait.llama.model import Model
from tests.native import models

ENGINE = config.Engine(threads=1, batch_size=256, ubatch_size=256)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def loaded(path: Path, write: Callable[[Path], None]) -> Iterator[Model]:
    write(path)
    with Model(str(path), ENGINE) as model:
        yield model


@pytest.fixture(scope="session")
def model(folder: Path) -> Iterator[Model]:
    """One with plain attention."""
    yield from loaded(folder / "llama.gguf", models.write_llama)


@pytest.fixture(scope="session")
def recurrent_model(folder: Path) -> Iterator[Model]:
    yield from loaded(folder / "mamba.gguf", models.write_mamba)


@pytest.fixture(scope="session")
def sliding_model(folder: Path) -> Iterator[Model]:
    """One with a sliding window."""
    yield from loaded(folder / "gemma.gguf", models.write_gemma)


@pytest.fixture(scope="session")
def overflowing_model(folder: Path) -> Iterator[Model]:
    """One whose logits are too large for a float."""
    yield from loaded(folder / "overflow.gguf", lambda path: models.write_llama(path, norm=3e38))


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with Context(model, ENGINE, n_ctx=512, n_slots=4) as context:
        yield context


@pytest.fixture
def recurrent_context(recurrent_model: Model) -> Iterator[Context]:
    with Context(recurrent_model, ENGINE, n_ctx=512, n_slots=4) as context:
        yield context
