"""What is converted keeps its codes and scales bit by bit, says the right things of itself, or is refused in words."""

from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from gguf import GGUFReader, ReaderTensor, quants

from plait.bitnet import layout, target, tiny
from plait.bitnet.metadata import CHAT_TEMPLATE
from plait.bitnet.tiny import TINY, Numbers, Shape
from plait.bitnet.writing import Value
from plait.config import I2SLayout
from plait.errors import ModelLoadFailed
from plait.gguf import skim
from plait.protocol import ChatMessage
from plait.text.template import ChatTemplate
from tests.fakes.bitnet import convert, write_official

NUMBERS = Numbers(TINY)


def tensors(path: Path) -> dict[str, ReaderTensor]:
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def said(path: Path, key: str) -> object:
    field = GGUFReader(path).get_field(key)
    return field.contents() if field else None


@pytest.mark.parametrize("i2s_layout", ["x86", "arm"])
def test_codes_and_scales_are_read_back_equal(tmp_path: Path, i2s_layout: I2SLayout) -> None:
    found = tensors(convert(write_official(tmp_path / "a.gguf", layout=i2s_layout), layout=i2s_layout))
    assert len(found) == len(NUMBERS.plain) + 2 * len(NUMBERS.ternary)
    for name, matrix in NUMBERS.ternary.items():
        weights = found[f"{name}.weight"]
        codes = quants.dequantize(weights.data, weights.tensor_type)
        assert np.array_equal(codes, matrix.codes.astype(np.float32) - 1)
        assert found[f"{name}.scale"].data.tolist() == [matrix.scale]


def test_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    found = tensors(convert(write_official(tmp_path / "a.gguf")))
    for name, plain in NUMBERS.plain.items():
        assert np.array_equal(found[f"{name}.weight"].data, plain)


@pytest.mark.parametrize("wide", ["F32", "F16", "BF16"])
def test_the_head_may_become_bytes(tmp_path: Path, wide: str) -> None:
    numbers = Numbers(TINY, wide=wide)
    head = tensors(convert(write_official(tmp_path / "a.gguf", numbers), "q8_0"))["token_embd.weight"]
    assert head.tensor_type.name == "Q8_0"
    assert np.array_equal(head.data.reshape(-1, 34), layout.q8_0(numbers.plain["token_embd"]))


def test_of_llama_the_head_is_its_own_and_the_embedding_stays(tmp_path: Path) -> None:
    source = write_official(tmp_path / "a.gguf", Numbers(TINY, is_bitnet=False), "llama", has_head=True)
    found = tensors(convert(source, "q8_0"))
    assert [found[name].tensor_type.name for name in ("token_embd.weight", "output.weight")] == ["F16", "Q8_0"]


def test_what_the_file_says_of_itself_is_repaired(tmp_path: Path) -> None:
    converted = convert(write_official(tmp_path / "a.gguf"))
    model = skim(converted)
    assert (model.architecture, model.quantization, model.n_layers) == ("bitnet", "TQ2_0", TINY.n_layer)
    assert said(converted, "bitnet.hidden_activation") == "relu2"
    assert said(converted, "tokenizer.ggml.pre") == "llama-bpe"
    assert said(converted, "tokenizer.ggml.eot_token_id") == 2
    assert said(converted, "tokenizer.chat_template") == CHAT_TEMPLATE
    assert said(converted, "bitnet-b1.58.block_count") is None
    assert said(converted, "tokenizer.ggml.tokens") == tiny.vocabulary(TINY.n_vocab)


def test_what_was_right_is_kept(tmp_path: Path) -> None:
    right: dict[str, Value] = {"tokenizer.ggml.pre": "gpt-2", "tokenizer.chat_template": "{{ mine }}"}
    converted = convert(write_official(tmp_path / "a.gguf", changes={**right, "tokenizer.ggml.eot_token_id": 1}))
    assert {key: said(converted, key) for key in right} == right
    assert said(converted, "tokenizer.ggml.eot_token_id") == 1


def test_of_llama_only_the_weights_are_converted(tmp_path: Path) -> None:
    converted = convert(write_official(tmp_path / "a.gguf", Numbers(TINY, is_bitnet=False), "llama"))
    assert said(converted, "general.architecture") == "llama"
    assert said(converted, "llama.hidden_activation") is None
    assert said(converted, "tokenizer.ggml.pre") is None
    assert said(converted, "tokenizer.chat_template") == tiny.OFFICIAL_TEMPLATE


def test_turns_are_written_as_the_model_was_trained() -> None:
    control = ("<|begin_of_text|>", "<|eot_id|>")
    template = ChatTemplate(CHAT_TEMPLATE, control, "<|begin_of_text|>", "<|end_of_text|>")
    turns = [ChatMessage("system", " Be brief. "), ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello")]
    text = "".join(text for text, _ in template.render([*turns, ChatMessage("user", "Bye\n")]))
    assert text == (
        "<|begin_of_text|>System: Be brief.<|eot_id|>User: Hi<|eot_id|>Assistant: Hello<|eot_id|>User: Bye<|eot_id|>"
        "Assistant: "
    )


def test_progress_ends_with_the_files_size(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = tmp_path / "b.gguf"
    target.convert(write_official(tmp_path / "a.gguf"), path, "f16", "x86", lambda *report: heard.append(report))
    assert heard == sorted(heard)
    assert heard[-1] == (path.stat().st_size,) * 2


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


def spoilt(path: Path, tensor: str, at: int, data: bytes) -> Path:
    """An official file with other bytes in one tensor, counted from its end if `at` is below 0."""
    model = skim(write_official(path))
    (found,) = (each for each in model.tensors if each.name == tensor)
    with path.open("r+b") as file:
        file.seek(model.data_offset + found.offset + at % found.n_bytes)
        file.write(data)
    return path


@pytest.mark.parametrize("scale", [0.0, -0.5, float("nan"), float("inf"), 1e-9])
def test_a_scale_that_cannot_be_is_refused(tmp_path: Path, scale: float) -> None:
    source = spoilt(tmp_path / "a.gguf", "blk.1.attn_v.weight", -32, np.float32(scale).tobytes())
    with pytest.raises(ModelLoadFailed, match=r"a\.gguf: the scale of blk\.1\.attn_v\.weight is"):
        convert(source)


def test_codes_of_no_weight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"blk\.0\.ffn_up\.weight has codes of no weight"):
        convert(spoilt(tmp_path / "a.gguf", "blk.0.ffn_up.weight", -33, b"\xff"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_a_head_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    source = write_official(tmp_path / "a.gguf", architecture="bitnet-25", has_head=True)
    with source.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\0\0")
    with pytest.raises(ModelLoadFailed, match="its output head is not its embedding"):
        convert(source)


def test_rows_that_do_not_fit_a_block_are_refused(tmp_path: Path) -> None:
    numbers = Numbers(Shape(n_embd=256, n_ff=384))
    with pytest.raises(ModelLoadFailed, match=r"ffn_down\.weight has rows of 384 weights; only multiples of 256"):
        convert(write_official(tmp_path / "a.gguf", numbers))


def test_a_file_that_needs_no_conversion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="can be served as it is"):
        convert(convert(write_official(tmp_path / "a.gguf")), name="again.gguf")


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    source = write_official(tmp_path / "a.gguf")
    with pytest.raises(ModelLoadFailed, match=r"a\.gguf cannot be converted to .*: File exists"):
        target.convert(source, source / "b.gguf", "f16", "x86", lambda n_done, n_total: None)


# ── whole or not at all ──────────────────────────────────────────────────────────────────────────────────────────


class Interrupted(Exception):
    pass


def test_nothing_is_left_of_what_was_interrupted(tmp_path: Path) -> None:
    def interrupt(n_done: int, n_total: int) -> None:
        raise Interrupted

    source = write_official(tmp_path / "a.gguf")
    with pytest.raises(Interrupted):
        target.convert(source, tmp_path / "b.gguf", "f16", "x86", interrupt)
    assert list(tmp_path.iterdir()) == [source]


def test_what_a_killed_process_left_is_begun_anew(tmp_path: Path) -> None:
    source = write_official(tmp_path / "a.gguf")
    (tmp_path / "converted.gguf.part").write_bytes(b"x" * 10_000_000)
    assert len(tensors(convert(source))) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "converted.gguf"]


def test_who_comes_second_takes_what_the_first_has_made(tmp_path: Path) -> None:
    source = write_official(tmp_path / "a.gguf")
    inodes = []
    threads = [Thread(target=lambda: inodes.append(convert(source).stat().st_ino)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inodes == [inodes[0]] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "converted.gguf"]
