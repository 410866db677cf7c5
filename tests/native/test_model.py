"""What a file says of itself, its vocabulary, and every way in which it cannot be served."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import BadRequest, ModelLoadFailed, NotTokenizable
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.pretokenizer import MAX_RUN, SLOW
from tests.native import models
from tests.native.conftest import ENGINE


def spoken(model: Model, tokens: list[int]) -> bytes:
    return b"".join(model.pieces[token] for token in tokens)


def test_facts_come_from_the_file(model: Model) -> None:
    assert (model.n_vocab, model.n_ctx_train) == (len(models.vocabulary()), models.N_CTX_TRAIN)
    assert (model.n_layer, model.n_embd) == (models.N_LAYER, models.N_EMBD)
    assert model.model_bytes == 4 * model.n_params
    assert "llama" in model.description


def test_metadata_is_text_or_nothing(model: Model) -> None:
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("tokenizer.chat_template") == model.chat_template == models.TEMPLATE
    assert model.metadata("no.such.key") is None


def test_control_tokens_stand_for_no_text(model: Model) -> None:
    assert model.pieces[:4] == [b""] * 4
    assert sorted(model.pieces[4:260]) == [bytes([byte]) for byte in range(256)]
    assert model.control_texts == models.CONTROL_TEXTS


def test_they_can_be_written_out_but_for_those_that_end_an_answer(model: Model) -> None:
    assert model.spelled[:4] == [b"<|bos|>", b"", b"<|im_start|>", b""]
    assert model.spelled[4:] == model.pieces[4:]


def test_every_end_of_a_turn_is_an_end(model: Model) -> None:
    assert model.end_tokens == {models.END_OF_TEXT, models.TURN_END}
    assert (model.bos_text, model.eos_text) == ("<|bos|>", "<|endoftext|>")
    assert model.suppressed == ()


@given(text=st.text())
def test_tokens_spell_the_text(model: Model, text: str) -> None:
    tokens = model.tokenize(text, add_special=False, parse_special=False)
    assert spoken(model, tokens) == text.encode()


ODD = ["", "a\0b\0", "👩\u200d👧 ", "x" * 100_000, " " * 100_000, "\n" * 100_000, "the 1é👋\0" * 12_500]


@pytest.mark.parametrize("text", ODD, ids=[f"{text[:3]!r}x{len(text)}" for text in ODD])
def test_no_text_is_too_odd(model: Model, text: str) -> None:
    assert spoken(model, model.tokenize(text, add_special=False, parse_special=False)) == text.encode()


RUN = MAX_RUN
RUNS = ["a" * (RUN + 1), "b\n" + "字 " * RUN, " \n" * RUN, "a\n" + "\u3000" * (RUN + 1)]


@pytest.mark.parametrize("text", RUNS, ids=["letters", "words", "lines", "white space"])
def test_a_text_that_a_regex_would_have_to_take_in_one_bite_is_refused(model: Model, text: str) -> None:
    with pytest.raises(NotTokenizable):
        model.tokenize(text, add_special=False, parse_special=False)


def test_a_long_text_of_many_lines_is_not(model: Model) -> None:
    text = ("a" * RUN + "\n") * 2 + " " * (RUN - 1)
    assert spoken(model, model.tokenize(text, add_special=False, parse_special=False)) == text.encode()


@pytest.mark.parametrize("pre", SLOW)
def test_a_text_that_takes_too_long_to_be_cut_is_refused_before(tmp_path: Path, pre: str) -> None:
    models.write_llama(tmp_path / "slow.gguf", pre=pre)
    with Model(str(tmp_path / "slow.gguf"), ENGINE) as slow:
        for text in ("7" * 1000, " " * 1000 + "7"):
            slow.check_pace([text], "prompt")
            assert spoken(slow, slow.tokenize(text, add_special=False, parse_special=False)) == text.encode()
        with pytest.raises(NotTokenizable, match="in a row"):
            slow.check_pace(["7" * 50_000, " " * 50_000 + "7"], "prompt")


def test_where_it_is_cut_quickly_it_is_not(model: Model) -> None:
    model.check_pace(["7" * 50_000, " " * 50_000 + "7"], "prompt")


@pytest.mark.parametrize("text", ["", "x", "日本語", "qzqzqz"])
def test_a_text_may_have_more_tokens_than_bytes(model: Model, text: str) -> None:
    tokens = model.tokenize(text, add_special=True, parse_special=False)
    assert tokens == [models.BOS, *model.tokenize(text, add_special=False, parse_special=False)]


def test_merges_are_applied(model: Model) -> None:
    assert len(model.tokenize("the and", add_special=False, parse_special=False)) == 3


@pytest.mark.parametrize("text", models.CONTROL_TEXTS)
def test_control_tokens_cannot_be_forged(model: Model, text: str) -> None:
    forged = model.tokenize(f"hi{text}", add_special=False, parse_special=False)
    assert not set(forged) & set(range(4))
    assert model.tokenize(text, add_special=False, parse_special=True) == [models.CONTROL_TEXTS.index(text)]


def test_half_a_character_is_refused(model: Model) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        model.tokenize("\ud800", add_special=False, parse_special=False)


def test_only_plain_memory_is_called_plain(model: Model, recurrent_model: Model) -> None:
    assert (model.has_plain_memory, recurrent_model.has_plain_memory) == (True, False)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: None, "No such file"),
    (lambda path: path.mkdir(), "not a file"),
    (lambda path: path.touch(), "not a GGUF file"),
    (lambda path: path.write_text("PK\3\4"), "not a GGUF file"),
    (lambda path: path.write_bytes(b"GGUF"), r"read|header"),
    (lambda path: path.write_bytes(b"GGUF" + b"\xff" * 64), "version"),
    (models.write_encoder, "encoder"),
    (partial(models.write_llama, is_causal=False), "all of it at once"),
    (partial(models.write_llama, has_tokenizer=False), "no tokenizer"),
    (partial(models.write_llama, norm=float("nan")), "invalid data"),
]


@pytest.mark.parametrize(("write", "reason"), REFUSED)
def test_what_cannot_be_served_is_refused_in_words(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    write(tmp_path / "x.gguf")
    with pytest.raises(ModelLoadFailed, match=reason):
        Model(str(tmp_path / "x.gguf"), ENGINE)


def test_half_a_file_is_refused(model: Model, folder: Path, tmp_path: Path) -> None:
    whole = (folder / "llama.gguf").read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelLoadFailed, match="truncated"):
        Model(str(tmp_path / "half.gguf"), ENGINE)


@pytest.mark.parametrize("changes", [{"tensor_split": "3,1"}, {"mmap": False}, {"mlock": True}, {"n_gpu_layers": 0}])
def test_however_it_is_loaded_it_is_the_same_model(model: Model, folder: Path, changes: dict[str, object]) -> None:
    with Model(str(folder / "llama.gguf"), msgspec.structs.replace(ENGINE, **changes)) as other:
        assert (other.n_params, other.pieces) == (model.n_params, model.pieces)


def test_shares_for_more_devices_than_there_can_be_are_refused(folder: Path, model: Model) -> None:
    with pytest.raises(ModelLoadFailed, match="17 devices"):
        Model(str(folder / "llama.gguf"), msgspec.structs.replace(ENGINE, tensor_split="1" + ",1" * 16))


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(ModelLoadFailed, match="null byte"):
        Model("a\0b", ENGINE)


def test_a_closed_model_is_not_asked(model: Model, folder: Path) -> None:
    other = Model(str(folder / "llama.gguf"), ENGINE)
    other.close()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.tokenize("x", add_special=False, parse_special=False)
    with pytest.raises(ValueError, match="closed"):
        other.metadata("general.name")


def test_a_model_outlives_its_contexts(model: Model, folder: Path) -> None:
    with Model(str(folder / "llama.gguf"), ENGINE) as other:
        with Context(other, ENGINE, n_ctx=256, n_slots=1), pytest.raises(RuntimeError, match="still"):
            other.close()
        assert other.tokenize("the", add_special=False, parse_special=False)
