"""The contexts that must keep one contract: the fake that the engine's tests run on, and libllama's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import structs

from plait.config import Engine as Settings
from plait.engine.engine import Context
from plait.llama.context import Context as LlamaContext
from plait.llama.model import Model
from plait.llama.sampling import Sampler
from plait.protocol import Sampling
from tests.fakes.context import FakeContext
from tests.native.adapters import write_adapter
from tests.native.models import write_gemma, write_llama, write_mamba

N_STREAMS = 4
POOL = 1024
"""Cells of a pool."""
SETTINGS = Settings(threads=1, batch_size=256, ubatch_size=256)
Q8_0 = structs.replace(SETTINGS, cache_type_k="q8_0", cache_type_v="q8_0")


class Subject(NamedTuple):
    """A context, and its best token after the k-th span of the last decode."""

    context: Context
    best: Callable[[int], int]
    bits: Callable[[int], object]
    """All that is known after the k-th span."""


def real(
    path: Path, write: Callable[[Path], None], *, n_cells: int = 0, settings: Settings = SETTINGS
) -> Iterator[Subject]:
    write(path)
    with (
        Model(str(path), settings) as model,
        LlamaContext(model, settings, n_ctx=512, n_slots=N_STREAMS, n_cells=n_cells) as context,
    ):
        greedy = Sampler(model, Sampling(temperature=0, seed=0), 0, [])
        yield Subject(context, lambda span: context.sample(greedy, span), lambda span: context.logits(span).tobytes())
        greedy.close()


def fake(*, can_trim: bool = True, can_cut: bool | None = None, n_cells: int | None = None) -> Iterator[Subject]:
    context = FakeContext(N_STREAMS, can_trim=can_trim, can_cut=can_cut, n_cells=n_cells)
    yield Subject(context, context.sampler(), lambda span: tuple(context.last[span] or ()))


@pytest.fixture(params=["fake", "fake, unified", "libllama", "libllama, q8_0", "libllama, unified"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One whose streams can be cut anywhere."""
    path = tmp_path / "model.gguf"
    match request.param:
        case "fake":
            yield from fake()
        case "fake, unified":
            yield from fake(n_cells=POOL)
        case "libllama":
            yield from real(path, write_llama)
        case "libllama, q8_0":
            yield from real(path, write_llama, settings=Q8_0)
        case _:
            yield from real(path, write_llama, n_cells=POOL)


@pytest.fixture(params=["fake", "libllama"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One whose streams share a pool of cells."""
    if request.param == "fake":
        yield from fake(n_cells=POOL)
    else:
        yield from real(tmp_path / "model.gguf", write_llama, n_cells=POOL)


@pytest.fixture(params=["fake", "libllama"])
def whole_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One whose streams are used whole or not at all."""
    yield from fake(can_trim=False) if request.param == "fake" else real(tmp_path / "model.gguf", write_mamba)


@pytest.fixture(params=["fake", "libllama", "libllama, unified"])
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One whose streams can be cut back, and are kept whole."""
    path = tmp_path / "model.gguf"
    match request.param:
        case "fake":
            yield from fake(can_cut=False)
        case "libllama":
            yield from real(path, write_gemma)
        case _:
            yield from real(path, write_gemma, n_cells=POOL)


@pytest.fixture(params=["fake", "libllama", "libllama, unified"])
def adapted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """One with two adapters."""
    if request.param == "fake":
        yield from fake()
        return
    paths = [tmp_path / "one.gguf", tmp_path / "other.gguf"]
    for seed, path in enumerate(paths):
        write_adapter(path, seed=seed)
    settings = structs.replace(SETTINGS, lora=tuple(map(str, paths)))
    n_cells = POOL if request.param == "libllama, unified" else 0
    yield from real(tmp_path / "model.gguf", write_llama, n_cells=n_cells, settings=settings)
