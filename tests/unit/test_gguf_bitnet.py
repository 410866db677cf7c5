"""Which files are bitnet.cpp's, and which of them cannot be served."""

from pathlib import Path

import pytest

from plait import gguf
from plait.gguf import GGUFError
from tests.fakes.bitnet import convert, write_official
from tests.fakes.gguf_file import TENSORS, Plain, Weights, write_gguf

SCALE = Weights("blk.0.attn_q.weight_scale", (1,), 0, 4)


def as_architecture(name: str) -> dict[str, Plain]:
    return {"general.architecture": name}


@pytest.mark.parametrize(
    ("architecture", "number", "others", "kind"),
    [
        ("bitnet-b1.58", 38, [], "TL1"),
        ("bitnet-b1.58", 39, [], "TL2"),
        ("bitnet-25", 42, [], "TL2"),
        ("llama", 38, [], "TL1"),
        ("llama", 39, [SCALE], "TL2"),
        ("bitnet", 42, [SCALE], "TL2"),
        ("llama", 37, [], "I8_S"),
    ],
)
def test_tables_that_are_not_in_the_file_are_a_reason_to_refuse_it(
    tmp_path: Path, architecture: str, number: int, others: list[Weights], kind: str
) -> None:
    tensor = Weights("blk.0.attn_q.weight", (250, 3), number, 64)
    path = write_gguf(tmp_path / "tl.gguf", as_architecture(architecture), [*TENSORS, tensor, *others])
    with pytest.raises(GGUFError, match=rf"tl\.gguf: blk\.0\.attn_q\.weight is of bitnet.cpp's type {kind}, .*i2_s"):
        gguf.skim(path)


@pytest.mark.parametrize(("number", "n_bytes"), [(39, 17 * 64), (42, 18 * 32)])
def test_numbers_that_llama_cpp_uses_for_something_else_are_read_as_that(
    tmp_path: Path, number: int, n_bytes: int
) -> None:
    path = write_gguf(tmp_path / "m.gguf", None, [Weights("a", (64, 32), number, n_bytes)])
    assert gguf.skim(path).n_tensor_bytes == n_bytes


def test_an_official_file_is_known_by_its_architecture_and_its_tensors(tmp_path: Path) -> None:
    official = gguf.skim(write_official(tmp_path / "official.gguf"))
    converted = gguf.skim(convert(tmp_path / "official.gguf"))
    assert (gguf.needs_conversion(official), gguf.squares_relu(official), official.quantization) == (True, True, "I2_S")
    assert (gguf.needs_conversion(converted), gguf.squares_relu(converted)) == (False, True)


def test_llama_with_i2_s_needs_conversion_only(tmp_path: Path) -> None:
    llama = gguf.skim(write_gguf(tmp_path / "m.gguf", None, [Weights("a.weight", (256, 2), 36, 128 + 32)]))
    assert (gguf.needs_conversion(llama), gguf.squares_relu(llama)) == (True, False)
    with pytest.raises(GGUFError, match=r"a\.weight is of type I2_S; `plait convert`"):
        gguf.check(llama)


def test_squared_relu_without_scales_is_refused(tmp_path: Path) -> None:
    said: dict[str, Plain] = {
        "general.architecture": "bitnet",
        "bitnet.block_count": 1,
        "bitnet.hidden_activation": "relu2",
    }
    with pytest.raises(GGUFError, match=r"no blk\.0\.ffn_gate\.scale"):
        gguf.check(gguf.skim(write_gguf(tmp_path / "m.gguf", said)))
