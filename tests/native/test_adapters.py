"""LoRA adapters change what a model computes, by their scale; what is none is refused in words."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from plait.config import parse_adapter
from plait.errors import BadRequest, ModelLoadFailed
from plait.llama.adapters import Adapter, chosen
from plait.llama.context import Context
from plait.llama.lib import native
from plait.llama.model import Model
from plait.protocol import AdapterScale
from tests.native import models
from tests.native.adapters import write_adapter
from tests.native.conftest import ENGINE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "llama.gguf"
    models.write_llama(path)
    return path


def logits(base: Path, *lora: str, **settings: float) -> NDArray[np.float32]:
    """What comes after a few tokens."""
    engine = structs.replace(ENGINE, lora=lora, **settings)
    with Model(str(base), engine) as model, Context(model, engine, n_ctx=256, n_slots=1) as context:
        context.decode([(0, 0, [5, 6, 7, 8], True)])
        return context.logits(0)


def test_an_adapter_counts_as_much_as_its_scale(base: Path, tmp_path: Path) -> None:
    write_adapter(path := tmp_path / "lora.gguf")
    without, whole, half = logits(base), logits(base, str(path)), logits(base, f"{path}=0.5")
    assert not np.array_equal(without, whole)
    assert not np.array_equal(whole, half)
    assert np.array_equal(logits(base, f"{path}=0"), without)
    assert np.array_equal(logits(base, f"{path}=1"), whole)


def test_several_adapters_add_up(base: Path, tmp_path: Path) -> None:
    write_adapter(path := tmp_path / "lora.gguf")
    both = logits(base, f"{path}=0.5", f"{path}=0.5")
    assert np.allclose(both, logits(base, str(path)), atol=1e-3)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (partial(write_adapter, kind="model"), "not a LoRA adapter"),
        (partial(write_adapter, kind=3), "not a LoRA adapter"),
        (partial(write_adapter, alpha=4), "alpha"),
        (partial(write_adapter, invocation=True), "not served"),
        (partial(write_adapter, architecture="mamba"), "arch"),
        (partial(write_adapter, n_embd=32), "shape"),
    ],
)
def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path, write: Callable[[Path], None], reason: str) -> None:
    write(path := tmp_path / "lora.gguf")
    with pytest.raises(ModelLoadFailed, match=reason):
        logits(base, str(path))


def test_a_file_that_is_missing_or_no_gguf_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    for name in ("text.gguf", "missing.gguf"):
        with pytest.raises(ModelLoadFailed, match=name):
            logits(base, str(tmp_path / name))


@pytest.mark.parametrize(
    ("spelling", "path", "scale"),
    [
        ("a.gguf", "a.gguf", 1.0),
        ("a.gguf=0.5", "a.gguf", 0.5),
        ("a.gguf=-2", "a.gguf", -2.0),
        ("x=1/a.gguf", "x=1/a.gguf", 1.0),
        ("x=1/a.gguf=3", "x=1/a.gguf", 3.0),
        ("a.gguf=nan", "a.gguf=nan", 1.0),
        ("=2", "=2", 1.0),
    ],
)
def test_the_scale_is_what_follows_the_last_sign(spelling: str, path: str, scale: float) -> None:
    assert parse_adapter(spelling) == (path, scale)


NOTHING = native.llama_adapter_lora_p_ctypes()
LOADED = [Adapter(NOTHING, 1.0), Adapter(NOTHING, 0.5)]


@pytest.mark.parametrize(
    ("wanted", "scales"),
    [
        (None, ()),
        ([], (0.0, 0.0)),
        ([(1, 0.25)], (0.0, 0.25)),
        ([(1, -1.0), (0, 2.0)], (2.0, -1.0)),
        ([(1, 0.5), (0, 1.0)], ()),
    ],
)
def test_who_names_no_adapter_has_those_of_the_start_and_others_only_what_they_name(
    wanted: list[tuple[int, float]] | None, scales: tuple[float, ...]
) -> None:
    said = None if wanted is None else [AdapterScale(*each) for each in wanted]
    assert chosen(said, LOADED) == scales


@pytest.mark.parametrize(
    ("loaded", "id", "said"),
    [
        ([], 0, "no adapter 0; none is loaded"),
        (LOADED[:1], 1, "no adapter 1; the only one is 0"),
        (LOADED, 2, "no adapter 2; there are 0 to 1"),
    ],
)
def test_an_adapter_that_is_not_loaded_is_refused(loaded: list[Adapter], id: int, said: str) -> None:
    with pytest.raises(BadRequest, match=f"^lora: there is {said}$") as refused:
        chosen([AdapterScale(id, 1.0)], loaded)
    assert refused.value.param == "lora"


def test_of_no_adapters_none_may_be_chosen() -> None:
    assert chosen([], []) == ()


def test_rope_can_be_stretched(base: Path) -> None:
    assert not np.array_equal(logits(base), logits(base, rope_freq_scale=0.25))
    assert not np.array_equal(logits(base), logits(base, rope_freq_base=500.0))
    assert np.array_equal(logits(base), logits(base, rope_freq_base=10_000.0))
