"""A header is read right when it is right, and refused quickly when it is not."""

import os
import time
from pathlib import Path
from struct import pack

import gguf as gguf_package
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait import gguf
from plait.errors import ModelLoadFailed
from plait.gguf import GGUFError, KVRow, Unreadable
from tests.fakes.gguf_file import LLAMA, MAGIC, TENSORS, Plain, Weights, gguf_bytes, text, value, write_gguf

GOOD = gguf_bytes()
SECONDS = 2
"""Of the processor, that no file of this size may take."""


def skim_bytes(folder: Path, data: bytes) -> gguf.Header:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return gguf.skim(path)


def test_a_header_says_what_the_model_is(tmp_path: Path) -> None:
    model = skim_bytes(tmp_path, GOOD)
    assert (model.architecture, model.name, model.quantization) == ("llama", "Tiny", "F16")
    assert (model.n_params, model.n_tensor_bytes) == (64 * 32 + 64, 64 * 32 * 2 + 256)
    assert (model.n_vocab, model.n_layers, model.n_file_bytes) == (3, 4, len(GOOD))
    assert model.kv_rows() == [KVRow(32, 32)] * 4


def test_what_the_gguf_package_writes_is_read(tmp_path: Path) -> None:
    writer = gguf_package.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_name("Written")
    writer.add_token_list([b"a"] * 5)
    writer.add_key_value("some.number", 1.5, gguf_package.GGUFValueType.FLOAT64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = gguf.skim(tmp_path / "model.gguf")
    assert (model.name, model.n_vocab, model.metadata["some.number"]) == ("Written", 5, 1.5)


@pytest.mark.parametrize("number", gguf_package.GGML_QUANT_SIZES)
def test_block_sizes_are_those_of_the_gguf_package(number: gguf_package.GGMLQuantizationType) -> None:
    # The package says 40 bytes for Q8_1; llama.cpp's block_q8_1 has two half floats and 32 bytes.
    expected = (32, 36) if number.name == "Q8_1" else gguf_package.GGML_QUANT_SIZES[number]
    known = gguf.TYPES[number]
    assert (known.name, known.n_block, known.n_bytes) == (number.name, *expected)


@pytest.mark.parametrize("file_type", [t for t in gguf_package.LlamaFileType if t.name != "GUESSED"])
def test_a_file_type_has_its_usual_name(tmp_path: Path, file_type: gguf_package.LlamaFileType) -> None:
    model = gguf.skim(write_gguf(tmp_path / "m.gguf", {"general.file_type": int(file_type)}))
    assert model.quantization in file_type.name


def test_without_a_file_type_most_bytes_decide(tmp_path: Path) -> None:
    tensors = [Weights("a", (64,), 0, 256), Weights("b", (256, 8), 12, 144 * 8)]
    model = gguf.skim(write_gguf(tmp_path / "m.gguf", {"general.file_type": 9999}, tensors))
    assert model.quantization == "Q4_K"


def test_sizes_of_rows_count_whole_blocks() -> None:
    assert [gguf.n_bytes(kind, 64) for kind in ("f16", "q8_0", "q4_0")] == [128, 68, 36]
    assert gguf.n_bytes("q8_0", 33) == 68


def test_a_large_vocabulary_is_passed_over_and_quickly(tmp_path: Path) -> None:
    began = time.process_time()
    model = gguf.skim(write_gguf(tmp_path / "m.gguf", {"tokenizer.ggml.tokens": ["token"] * 150_000}))
    assert model.n_vocab == 150_000
    assert time.process_time() - began < SECONDS


# ── what a model caches ──────────────────────────────────────────────────────────────────────────────────────────


def rows(folder: Path, **said: int | list[int]) -> list[KVRow]:
    changes: dict[str, Plain] = {f"llama.{key.replace('__', '.')}": plain for key, plain in said.items()}
    return gguf.skim(write_gguf(folder / "m.gguf", changes)).kv_rows()


def test_key_and_value_lengths_may_be_said(tmp_path: Path) -> None:
    assert rows(tmp_path, attention__key_length=16, attention__value_length=12) == [KVRow(64, 48)] * 4


def test_each_layer_may_have_its_own_heads(tmp_path: Path) -> None:
    assert rows(tmp_path, attention__head_count_kv=[0, 4, 0, 2]) == [KVRow(8 * n, 8 * n) for n in (0, 4, 0, 2)]


def test_only_every_so_many_layers_may_attend(tmp_path: Path) -> None:
    assert [row.n_k for row in rows(tmp_path, full_attention_interval=2)] == [0, 32, 0, 32]


def test_without_kv_heads_all_heads_are_cached(tmp_path: Path) -> None:
    metadata = {key: plain for key, plain in LLAMA.items() if "head_count_kv" not in key}
    assert skim_bytes(tmp_path, gguf_bytes(metadata)).kv_rows() == [KVRow(64, 64)] * 4


def test_a_recurrent_model_caches_nothing_per_token(tmp_path: Path) -> None:
    changes: dict[str, Plain] = {"general.architecture": "mamba", "mamba.block_count": 3}
    assert gguf.skim(write_gguf(tmp_path / "m.gguf", changes)).kv_rows() == [KVRow(0, 0)] * 3


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("attention.head_count_kv", [1, 2]),
        ("attention.head_count", "8"),
        ("attention.head_count", -8),
        ("embedding_length", -64),
        ("block_count", 100_000),
        ("block_count", 1.5),
    ],
)
def test_nonsense_about_layers_is_refused(tmp_path: Path, key: str, wrong: int | float | str | list[int]) -> None:
    model = gguf.skim(write_gguf(tmp_path / "m.gguf", {f"llama.{key}": wrong}))
    with pytest.raises(GGUFError, match=r"m\.gguf"):
        model.kv_rows()


NO_MODELS: list[tuple[dict[str, Plain], list[Weights], str]] = [
    ({"llama.block_count": 0}, [], "block_count is 0"),
    ({"llama.attention.layer_norm_rms_epsilon": -1.0}, [], "epsilon is -1.0"),
    ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, [], "epsilon is nan"),
    ({"llama.attention.layer_norm_epsilon": 1}, [], "epsilon is 1"),
    ({}, [Weights("blk.0.attn_norm.weight", (64,), 24, 64)], "attn_norm.weight is of type I8"),
]


@pytest.mark.parametrize(("changes", "tensors", "reason"), NO_MODELS)
def test_what_libllama_would_die_of_is_refused(
    tmp_path: Path, changes: dict[str, Plain], tensors: list[Weights], reason: str
) -> None:
    gguf.check(gguf.skim(write_gguf(tmp_path / "good.gguf", {"llama.attention.layer_norm_rms_epsilon": 1e-5})))
    with pytest.raises(GGUFError, match=rf"bad\.gguf: .*{reason}"):
        gguf.check(gguf.skim(write_gguf(tmp_path / "bad.gguf", changes, [*TENSORS, *tensors])))


# ── split models ─────────────────────────────────────────────────────────────────────────────────────────────────


def split(folder: Path, n_parts: int) -> list[Path]:
    paths = [folder / f"m-{i:05}-of-{n_parts:05}.gguf" for i in range(1, n_parts + 1)]
    return [write_gguf(path, {"split.count": n_parts}, [Weights(path.stem)]) for path in paths]


def test_the_parts_of_a_split_model_are_added_up(tmp_path: Path) -> None:
    first, *_ = parts = split(tmp_path, 3)
    model = gguf.skim(first)
    assert model.n_params == 3 * 64 * 32
    assert model.n_file_bytes == sum(part.stat().st_size for part in parts)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, second = split(tmp_path, 2)
    second.unlink()
    with pytest.raises(GGUFError, match=second.name):
        gguf.skim(first)


def test_only_the_first_part_stands_for_all(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="part 2 of 2"):
        gguf.skim(split(tmp_path, 2)[1])


def test_a_part_must_keep_its_name(tmp_path: Path) -> None:
    renamed = split(tmp_path, 2)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match="00001-of-00002"):
        gguf.skim(renamed)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


def head(n_tensors: int = 0, n_entries: int = 0, version: int = 3) -> bytes:
    return MAGIC + pack("<IQQ", version, n_tensors, n_entries)


def entry(key: str, kind: int, rest: bytes) -> bytes:
    return head(n_entries=1) + text(key) + pack("<I", kind) + rest


def tensor(*, name: str = "w", shape: tuple[int, ...] = (64,), kind: int = 0, offset: int = 0) -> bytes:
    info = text(name) + pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head(n_tensors=1) + info + bytes(1024)


BAD = {
    "empty": b"",
    "three bytes": b"GGU",
    "another format": b"PK\x03\x04" + bytes(100),
    "magic only": MAGIC,
    "version 0": head(version=0),
    "version 1": head(version=1),
    "version 4": head(version=4),
    "big-endian": MAGIC + pack(">I", 3) + bytes(16),
    "no counts": MAGIC + pack("<I", 3),
    "2^63 tensors": head(n_tensors=2**63),
    "2^63 keys": head(n_entries=2**63),
    "more keys than there are": head(n_entries=3) + text("a") + value(1),
    "a key of 2^60 bytes": head(n_entries=1) + pack("<Q", 2**60),
    "an empty key": head(n_entries=1) + text("") + value(1),
    "a key twice": head(n_entries=2) + 2 * (text("a") + value(1)),
    "a value of type 13": entry("a", 13, bytes(8)),
    "a text of 2^64 - 1 bytes": entry("a", 8, pack("<Q", 2**64 - 1)),
    "an array of arrays": entry("a", 9, pack("<IQ", 9, 1) + bytes(64)),
    "an array of 2^61 numbers": entry("a", 9, pack("<IQ", 4, 2**61)),
    "an array of 2^63 texts": entry("a", 9, pack("<IQ", 8, 2**63)),
    "an array of texts past the end": entry("a", 9, pack("<IQQ", 8, 2, 2**62) + bytes(64)),
    "alignment 0": head(n_entries=1) + text("general.alignment") + value(0),
    "alignment 3": head(n_entries=1) + text("general.alignment") + value(3),
    "alignment by name": head(n_entries=1) + text("general.alignment") + value("32"),
    "alignment true": entry("general.alignment", 7, b"\1"),
    "a tensor's name of 64 characters": tensor(name="w" * 64),
    "a tensor's name that would move the cursor": tensor(name="w\x1b[2J"),
    "5 dimensions": tensor(shape=(1,) * 5),
    "a dimension of 0": tensor(shape=(64, 0)),
    "2^63 numbers": tensor(shape=(2**63,)),
    "2^252 numbers": tensor(shape=(2**63,) * 4),
    "a type of the past": tensor(kind=4),
    "type 2^31": tensor(kind=2**31),
    "half a block": tensor(shape=(33,), kind=8),
    "an offset between alignments": tensor(offset=7),
    "an offset past the end": tensor(offset=2**40),
    "data past the end": tensor(shape=(4096,)),
    "two tensors of one name": gguf_bytes(tensors=[TENSORS[0], TENSORS[0]]),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_bad_header_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(GGUFError, match=r"model\.gguf: .+"):
        skim_bytes(tmp_path, data)


def test_a_bad_header_is_a_model_that_cannot_be_loaded() -> None:
    assert issubclass(GGUFError, ModelLoadFailed)


@pytest.mark.parametrize("n", range(0, len(GOOD), 37))
def test_a_file_cut_short_is_refused(tmp_path: Path, n: int) -> None:
    with pytest.raises(GGUFError):
        skim_bytes(tmp_path, GOOD[:n])


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="No such file"):
        gguf.skim(tmp_path / "none.gguf")


def test_a_file_that_the_system_does_not_give_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="too long"):
        gguf.skim(tmp_path / ("a" * 300))


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(GGUFError, match="null byte"):
        gguf.skim(Path("a\0b"))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", tmp_path):
        with pytest.raises(GGUFError, match="not a file"):
            gguf.skim(path)


def test_a_big_endian_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="big-endian"):
        skim_bytes(tmp_path, BAD["big-endian"])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (entry("a", 9, pack("<IQ", 8, 2**32)), "more than 8000000 texts"),
        (entry("a", 9, pack("<IQ", 4, 2**31)), "longer than 268435456 bytes"),
        (head(n_tensors=2**40), "100000 is the most of each"),
    ],
)
def test_a_huge_file_of_zeros_is_refused_quickly(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    os.truncate(path, 2**36)
    began = time.process_time()
    with pytest.raises(GGUFError, match=said):
        gguf.skim(path)
    assert time.process_time() - began < SECONDS


changes = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4)
lengths = st.just(len(GOOD)) | st.integers(0, len(GOOD))


@settings(max_examples=300)
@given(changes, lengths)
def test_however_a_file_is_spoilt_it_is_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, bytes]], n_kept: int
) -> None:
    data = bytearray(GOOD)
    for at, new in changes:
        data[at : at + len(new)] = new
    try:
        model = skim_bytes(tmp_path, bytes(data[:n_kept]))
        assert model.n_tensor_bytes <= model.n_file_bytes * len(model.tensors)
        assert len(model.kv_rows()) <= gguf.MAX_LAYERS
    except GGUFError as error:
        assert "model.gguf" in str(error)
