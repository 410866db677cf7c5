"""A model's digest: the same for the same bytes, another one for what is seen of others."""

from pathlib import Path

import pytest

from plait import gguf
from plait.gguf import GGUFError
from plait.gguf.digest import BLOCK_BYTES, N_BLOCKS, PAGE_BYTES
from tests.fakes.gguf_file import Weights, write_gguf

MIB = 1024**2
LARGE = [Weights(f"blk.{i}.weight", (1024, 1024), n_bytes=2 * MIB) for i in range(8)]
"""More than is read of it."""


def flipped(path: Path, at: int) -> str:
    """The digest with one byte changed, which is then put back."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        for value in (byte ^ 1, byte):
            file.seek(at)
            file.write(bytes([value]))
            file.flush()
            if value != byte:
                changed = gguf.digest(path)
    return changed


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "small.gguf")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "large.gguf", tensors=LARGE)


def split(folder: Path) -> list[Path]:
    names = [f"model-0000{i}-of-00002.gguf" for i in (1, 2)]
    return [write_gguf(folder / name, {"split.count": 2, "split.no": i}) for i, name in enumerate(names)]


def test_a_digest_is_that_of_the_bytes(tmp_path: Path, small: Path) -> None:
    copied = tmp_path / "other name"
    copied.write_bytes(small.read_bytes())
    assert gguf.digest(copied) == gguf.digest(small)
    assert len(bytes.fromhex(gguf.digest(small))) == 16


def test_every_byte_of_a_small_model_counts(small: Path) -> None:
    whole, size = gguf.digest(small), small.stat().st_size
    assert {flipped(small, at) != whole for at in range(gguf.skim(small).data_offset, size, 61)} == {True}
    assert gguf.digest(small) == whole


def test_metadata_counts(tmp_path: Path, small: Path) -> None:
    other = write_gguf(tmp_path / "other.gguf", {"general.name": "Tony"})
    assert other.stat().st_size == small.stat().st_size
    assert gguf.digest(other) != gguf.digest(small)


def test_long_lists_of_metadata_count(tmp_path: Path) -> None:
    words = [write_gguf(tmp_path / w, {"tokenizer.ggml.tokens": ["a"] * 5000 + [w]}) for w in ("b", "c")]
    assert gguf.digest(words[0]) != gguf.digest(words[1])


def test_size_counts(small: Path) -> None:
    whole = gguf.digest(small)
    with small.open("ab") as file:
        file.write(b"\0")
    assert gguf.digest(small) != whole


def test_the_ends_of_a_large_models_weights_count(large: Path) -> None:
    whole = gguf.digest(large)
    for at in (gguf.skim(large).data_offset, large.stat().st_size - 1):
        assert flipped(large, at) != whole


def test_each_tensor_of_a_large_model_counts(large: Path) -> None:
    whole, model = gguf.digest(large), gguf.skim(large)
    for tensor in model.tensors:
        assert flipped(large, model.data_offset + tensor.offset + tensor.n_bytes // 2) != whole


def test_what_lies_between_the_samples_of_a_large_model_is_not_seen(large: Path) -> None:
    model = gguf.skim(large)
    assert N_BLOCKS * BLOCK_BYTES + len(LARGE) * PAGE_BYTES < model.n_tensor_bytes
    assert flipped(large, model.data_offset + BLOCK_BYTES) == gguf.digest(large)


def test_each_part_of_a_split_model_counts(tmp_path: Path) -> None:
    parts = split(tmp_path)
    whole = gguf.digest(parts[0])
    for part in parts:
        part.write_bytes(part.read_bytes()[:-1] + b"\1")
        assert gguf.digest(parts[0]) != whole
        part.write_bytes(part.read_bytes()[:-1] + b"\0")


def test_a_missing_part_counts(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    whole = gguf.digest(first)
    second.unlink()
    assert gguf.digest(first) != whole


@pytest.mark.parametrize("data", [b"", b"GGUF", b"something else"])
def test_what_is_no_model_has_no_digest(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match=r"model\.gguf"):
        gguf.digest(path)


def test_a_file_that_is_gone_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="No such file"):
        gguf.digest(tmp_path / "model.gguf")
