"""BitNet's files are converted once, and found again; what cannot be served is refused before anything is loaded."""

import os
from pathlib import Path

import pytest

from plait.config import Config, Engine, Models
from plait.errors import ModelLoadFailed
from plait.fleet import conversion
from plait.gguf import digest, skim
from tests.fakes.bitnet import convert, write_official
from tests.fakes.gguf_file import write_gguf

SETTINGS = Config()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plait" / "converted"


def test_an_ordinary_model_is_loaded_as_it_is(tmp_path: Path, cache: Path) -> None:
    path = write_gguf(tmp_path / "llama.gguf")
    assert conversion.ready(path, SETTINGS) == path
    assert not cache.exists()


def test_a_converted_file_is_found_again(tmp_path: Path, cache: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    source = write_official(tmp_path / "official.gguf")
    first = conversion.ready(source, SETTINGS, lambda *report: heard.append(report))
    before = first.stat()
    moved = source.rename(tmp_path / "moved.gguf")
    assert conversion.ready(moved, SETTINGS, lambda *report: heard.append(report)) == first
    assert first.stat() == before
    assert (first.parent, skim(first).quantization) == (cache, "TQ2_0")
    assert {file for file, _, _ in heard} == {"official.gguf"}
    assert heard[-1][1:] == (before.st_size, before.st_size)


def test_a_file_that_was_written_again_is_converted_again(tmp_path: Path, cache: Path) -> None:
    source = write_official(tmp_path / "official.gguf")
    first = conversion.ready(source, SETTINGS)
    before = first.stat()
    os.utime(source, ns=(0, before.st_mtime_ns + 1))
    assert conversion.ready(source, SETTINGS) == first
    assert first.stat().st_mtime_ns == before.st_mtime_ns + 1
    assert list(cache.iterdir()) == [first]


def test_a_copy_of_an_earlier_date_is_the_same_file(tmp_path: Path) -> None:
    source = write_official(tmp_path / "official.gguf")
    before = conversion.ready(source, SETTINGS).stat()
    os.utime(source, (1, 1))
    assert conversion.ready(source, SETTINGS).stat() == before


def test_files_of_another_format_go_when_one_is_made(tmp_path: Path, cache: Path) -> None:
    source = write_official(tmp_path / "official.gguf")
    wide = conversion.ready(source, Config(models=Models(bitnet_head="f16")))
    old = cache / f"{digest(source)}-18ab-q8_0-x86-1.gguf"
    old.touch()
    assert {conversion.ready(source, SETTINGS), wide} == {*cache.iterdir()}


def test_each_way_to_convert_has_its_own_file(tmp_path: Path) -> None:
    source = write_official(tmp_path / "official.gguf")
    wide = Config(models=Models(bitnet_head="f16"))
    arm = Config(models=Models(i2s_layout="arm"))
    assert len({conversion.ready(source, settings) for settings in (SETTINGS, wide, arm)}) == 3


def test_what_the_converter_refuses_is_refused_in_its_words(tmp_path: Path, cache: Path) -> None:
    source = write_official(tmp_path / "official.gguf", architecture="bitnet-25", has_head=True)
    with source.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\0\0")
    with pytest.raises(ModelLoadFailed, match=r"official\.gguf: its output head is not its embedding"):
        conversion.ready(source, SETTINGS)
    assert not any(cache.parent.rglob("*.gguf"))


@pytest.mark.parametrize("is_converted", [False, True])
@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (Engine(n_gpu_layers=20), "computed on the CPU; n_gpu_layers is 20"),
        (Engine(lora=("a.gguf",)), "not computed with LoRA adapters"),
    ],
)
def test_squared_relu_is_refused_where_it_cannot_be(
    tmp_path: Path, is_converted: bool, engine: Engine, reason: str
) -> None:
    source = write_official(tmp_path / "official.gguf")
    path = convert(source) if is_converted else source
    with pytest.raises(ModelLoadFailed, match=f"BitNet's squared ReLU is {reason}"):
        conversion.ready(path, Config(engine=engine))
