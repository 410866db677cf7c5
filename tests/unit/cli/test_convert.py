"""`plait convert IN OUT`."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plait.cli.convert import command
from plait.errors import ModelLoadFailed
from plait.gguf import skim
from tests.fakes.bitnet import write_official


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


def test_it_converts_a_file_and_says_so(tmp_path: Path) -> None:
    source = write_official(tmp_path / "in.gguf")
    done = run(source, tmp_path / "out.gguf")
    assert (done.exit_code, "converted in.gguf" in done.output) == (0, True)
    assert skim(tmp_path / "out.gguf").quantization == "TQ2_0"


def test_the_head_may_stay_as_it_is(tmp_path: Path) -> None:
    run(write_official(tmp_path / "in.gguf"), tmp_path / "out.gguf", "--bitnet-head", "f16", "--i2s-layout", "arm")
    assert {tensor.type for tensor in skim(tmp_path / "out.gguf").tensors} == {"F16", "F32", "TQ2_0"}


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    source = write_official(tmp_path / "in.gguf")
    assert run(source, source).exit_code == 2
    assert skim(source).quantization == "I2_S"


@pytest.mark.parametrize("data", [b"", b"GGUF"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.gguf").write_bytes(data)
    refused = run(tmp_path / "in.gguf", tmp_path / "out.gguf")
    assert isinstance(refused.exception, ModelLoadFailed)
    assert not (tmp_path / "out.gguf").exists()
