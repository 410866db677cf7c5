"""libllama's logits for BitNet are those of its mathematics: on random ternary models in the official file's layout."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plait import config
from plait.bitnet import reference
from plait.bitnet.reference import Gate, Rounding, by_block, by_token
from plait.bitnet.tiny import TINY, Numbers
from plait.errors import ModelLoadFailed
from plait.llama.context import Context, DecodeFailed
from plait.llama.model import Model
from plait.llama.squared_relu import NotBitNet, SquaredReLU
from plait.worker import self_check
from tests.fakes.bitnet import border_margin, convert, write_official
from tests.native import models

EXACT = config.Engine(threads=1, batch_size=256, ubatch_size=32, n_gpu_layers=0, cache_type_k="f32", cache_type_v="f32")
"""A cache that rounds nothing, so that only the kernels' order of summing is left."""
NUMBERS = Numbers(TINY, wide="F32")
NEIGHBOURS = Numbers(TINY, wide="F32", is_bitnet=False)
# fmt: off
TOKENS = [
    170, 56, 86, 251, 185, 72, 42, 259, 194, 199, 70, 59, 215, 31, 40, 86, 34, 76, 146, 164, 77, 114, 199, 241, 206,
    256, 174, 150, 188, 214, 264, 59, 84, 131, 49, 4, 213, 7, 157, 251, 155, 263, 144, 254, 146, 148, 50, 55, 194,
    11, 133, 268, 267, 179, 259, 53, 42, 161, 150, 194, 116, 119, 107, 154, 94, 220, 94, 177, 243, 84, 86, 232,
]
# fmt: on
"""Chosen one by one, so that no activation lies next to a border between two roundings."""
N_SHORT = 10
"""So many of them are right for all models and gates here; the rest for BitNet's alone."""
SAFE = 2e-6
"""Relative: more than what activations differ by when another processor's kernels sum them."""


def error(said: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Relative, of whole vectors."""
    return float(np.linalg.norm(said - wanted) / np.linalg.norm(wanted))


@cache
def all_wanted(gate: Gate, rounding: Rounding) -> NDArray[Any]:
    return reference.logits(NUMBERS, TOKENS, gate, rounding)


def wanted(n: int, gate: Gate = "relu2", rounding: Rounding = by_block) -> NDArray[Any]:
    """The logits after the first `n` tokens."""
    row: NDArray[Any] = all_wanted(gate, rounding)[n - 1]
    return row


@contextmanager
def opened(path: Path, n_cells: int = 0, engine: config.Engine = EXACT) -> Iterator[Context]:
    with Model(str(path), engine) as model, Context(model, engine, n_ctx=256, n_slots=2, n_cells=n_cells) as context:
        yield context


def last_logits(path: Path, n: int = N_SHORT) -> NDArray[Any]:
    with opened(path) as context:
        context.decode([(0, 0, TOKENS[:n], True)])
        return context.logits(0)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(write_official(tmp_path_factory.mktemp("bitnet") / "i2_s.gguf", NUMBERS))


@pytest.fixture(scope="module")
def logits(converted: Path) -> NDArray[Any]:
    return last_logits(converted)


def test_no_activation_lies_next_to_a_border() -> None:
    """What differs in the last bits only has the same 8 bits, whichever way a processor's kernels sum."""
    assert border_margin(NUMBERS, self_check.TOKENS) > SAFE
    assert border_margin(NUMBERS, TOKENS) > SAFE
    assert border_margin(NUMBERS, TOKENS[:N_SHORT], "silu") > SAFE
    assert border_margin(NEIGHBOURS, TOKENS[:N_SHORT], "silu") > SAFE


def test_logits_are_those_of_the_mathematics(logits: NDArray[Any]) -> None:
    assert error(logits, wanted(N_SHORT)) < 1e-5
    assert error(logits, wanted(N_SHORT, rounding=by_token)) < 3e-2
    assert error(logits, wanted(N_SHORT, gate="silu")) > 0.1


def test_without_squared_relu_they_would_be_those_of_silu(converted: Path) -> None:
    with Model(str(converted), EXACT) as model:
        model.squares_relu = False
        with Context(model, EXACT, n_ctx=256, n_slots=1) as context:
            context.decode([(0, 0, TOKENS[:N_SHORT], True)])
            assert error(context.logits(0), wanted(N_SHORT)) > 0.1


@pytest.mark.parametrize("n_cells", [0, 512], ids=["split", "unified"])
def test_two_sequences_in_one_batch(converted: Path, n_cells: int) -> None:
    with opened(converted, n_cells) as context:
        context.decode([(0, 0, TOKENS[:20], True), (1, 0, TOKENS[:40], True)])
        assert error(context.logits(0), wanted(20)) < 1e-5
        assert error(context.logits(1), wanted(40)) < 1e-5
        context.decode([(0, 20, TOKENS[20:21], True), (1, 40, TOKENS[40:41], True)])
        assert error(context.logits(0), wanted(21)) < 1e-5
        assert error(context.logits(1), wanted(41)) < 1e-5


def test_a_prompt_longer_than_a_pass_and_one_in_pieces_without_logits(converted: Path) -> None:
    with opened(converted) as context:
        context.decode([(0, 0, TOKENS, True)])
        assert len(TOKENS) > 2 * context.n_ubatch
        assert error(context.logits(0), wanted(len(TOKENS))) < 1e-5
        for begin in (0, 25, 50):
            context.decode([(1, begin, TOKENS[begin:][:25], begin == 50)])
        assert error(context.logits(0), wanted(len(TOKENS))) < 1e-5


def test_written_tokens_go_on_from_a_prompt(converted: Path) -> None:
    with opened(converted) as context:
        context.decode([(0, 0, TOKENS[:60], False)])
        for i in range(60, 68):
            context.decode([(0, i, TOKENS[i : i + 1], True)])
            assert error(context.logits(0), wanted(i + 1)) < 1e-5


def test_the_logits_are_those_of_a_file_quantized_on_arm(tmp_path: Path, logits: NDArray[Any]) -> None:
    source = write_official(tmp_path / "arm.gguf", NUMBERS, layout="arm")
    assert np.array_equal(last_logits(convert(source, layout="arm")), logits)
    assert error(last_logits(convert(source, layout="x86", name="wrong.gguf")), logits) > 0.1


def test_bitnet_25_with_a_head_of_its_own_that_is_the_embedding(tmp_path: Path, logits: NDArray[Any]) -> None:
    source = write_official(tmp_path / "25.gguf", NUMBERS, "bitnet-25", has_head=True)
    assert np.array_equal(last_logits(convert(source)), logits)


def test_a_head_of_half_floats_and_one_of_bytes(tmp_path: Path) -> None:
    numbers = Numbers(TINY)
    source = write_official(tmp_path / "f16.gguf", numbers)
    computed = reference.logits(numbers, TOKENS[:N_SHORT])[-1]
    assert error(last_logits(convert(source, "f16")), computed) < 1e-5
    assert error(last_logits(convert(source, "q8_0", name="q8_0.gguf")), computed) < 3e-2


def test_llama_with_ternary_weights_keeps_its_silu(tmp_path: Path) -> None:
    said = last_logits(convert(write_official(tmp_path / "falcon.gguf", NEIGHBOURS, "llama")))
    assert error(said, reference.logits(NEIGHBOURS, TOKENS[:N_SHORT], "silu")[-1]) < 1e-5
    assert error(said, reference.logits(NEIGHBOURS, TOKENS[:N_SHORT])[-1]) > 0.1


def test_bitnet_of_another_maker_has_silu_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    silu = convert(write_official(tmp_path / "silu.gguf", NUMBERS, "bitnet"))
    assert error(last_logits(silu), wanted(N_SHORT, "silu")) < 1e-5
    said = {"bitnet.hidden_activation": "relu2"}
    relu2 = convert(write_official(tmp_path / "relu2.gguf", NUMBERS, "bitnet", changes=said), name="relu2-tq.gguf")
    assert error(last_logits(relu2), wanted(N_SHORT)) < 1e-5


def test_the_self_check_is_passed_as_this_libllama_is() -> None:
    assert self_check.relative_error(config.Engine()) < 1e-5
    self_check.run(config.Engine())


def test_the_self_check_knows_one_gate_from_another() -> None:
    with pytest.raises(ModelLoadFailed, match=r"BitNet is not served: .* differ"):
        self_check.run(config.Engine(), "silu")


def one_layer_too_many(model: Model, engine: config.Engine, **sizes: int) -> Context:
    """Its graph has fewer gates than layers, then."""
    model.n_layer += 1
    return Context(model, engine, **sizes)


def test_a_graph_that_the_self_check_does_not_know_is_refused_in_words() -> None:
    with pytest.raises(ModelLoadFailed, match=r"BitNet is not served: .* not that of BitNet"):
        self_check.run(config.Engine(), open_context=one_layer_too_many)


class OnceUnknown(SquaredReLU):
    """Does not know the first graph after it was told to fail."""

    fails = False

    def rewrite(self, context: int, graph: int, n: int) -> None:
        if self.fails:
            self.fails = False
            raise NotBitNet("told to fail")
        super().rewrite(context, graph, n)


class Unknowing(Context):
    gate = OnceUnknown


def test_of_several_graphs_the_first_has_to_be_right_too(converted: Path) -> None:
    with Model(str(converted), EXACT) as model, Unknowing(model, EXACT, n_ctx=256, n_slots=1) as context:
        assert isinstance(context.squared_relu, OnceUnknown)
        context.squared_relu.fails = True
        with pytest.raises(DecodeFailed, match="not that of BitNet"):
            context.decode([(0, 0, TOKENS[: EXACT.ubatch_size + 8], True)])
        assert not context.squared_relu.fails


def test_a_graph_that_is_not_bitnets_is_not_computed_with(tmp_path: Path) -> None:
    models.write_llama(tmp_path / "llama.gguf")
    with Model(str(tmp_path / "llama.gguf"), EXACT) as model:
        model.squares_relu = True
        with pytest.raises(ModelLoadFailed, match="not that of BitNet"):
            Context(model, EXACT, n_ctx=256, n_slots=1)
