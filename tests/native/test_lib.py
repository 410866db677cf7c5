"""libllama is quiet, is the version that was tested, and says why it aborts."""

import logging
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from plait.errors import ModelLoadFailed
from plait.llama import lib
from plait.llama.model import Model
from tests.native.conftest import ENGINE

LOAD = "import sys; from plait import config; from plait.llama.model import Model; Model(sys.argv[1], config.Engine())"
ABORT = "from plait.llama import lib; lib.start(''); lib.native._lib.ggml_abort(b'ops.c', 7, b'no\\nluck')"


def run(code: str, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)


def test_a_load_says_nothing_by_itself(model: Model, folder: Path) -> None:
    result = run(LOAD, str(folder / "llama.gguf"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_an_abort_says_why_in_one_line() -> None:
    result = run(ABORT)
    assert result.returncode < 0
    assert result.stderr == "plait: libllama aborts: ops.c:7: no luck\n"


def test_chatter_is_logged_as_debug(model: Model, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "plait.llama"):
        Model(str(folder / "llama.gguf"), ENGINE).close()
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert any("general.architecture" in record.getMessage() for record in caplog.records)


def test_errors_are_logged_as_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_unknown(tmp_path / "unknown.gguf")
    with lib.errors_heard() as errors, pytest.raises(ModelLoadFailed, match="unknown"):
        Model(str(tmp_path / "unknown.gguf"), ENGINE)
    assert caplog.records[0].levelno == logging.ERROR
    assert errors == []  # the load listened itself


def write_unknown(path: Path) -> None:
    """A sound file of an architecture that nobody knows."""
    writer = gguf.GGUFWriter(path, "nonsense")
    writer.add_block_count(1)
    writer.add_tensor("blk.0.weight", np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_fragments_become_lines(caplog: pytest.LogCaptureFixture) -> None:
    log = lib.NativeLog()
    for level, text in [(3, b"one"), (5, b" line\nand"), (5, b" another\n\n"), (4, b"cut"), (3, b"\xffodd\n")]:
        log.hear(level, text, None)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "one line"), ("WARNING", "and another"), ("ERROR", "cut"), ("WARNING", "\ufffdodd")]


def test_only_the_error_lines_are_collected() -> None:
    log = lib.NativeLog()
    with log.errors() as errors:
        log.hear(4, b"bad\n", None)
        log.hear(3, b"odd\n", None)
        log.hear(4, b"worse", None)
    log.hear(4, b"later\n", None)
    assert errors == ["bad", "worse"]


@pytest.mark.parametrize("versions", [("0.3.35", "0.5.0"), ("0.3.36", "0.4.9"), ("0.3.36", "0.5.01")])
def test_another_libllama_is_refused(versions: tuple[str, str]) -> None:
    with pytest.raises(lib.WrongLibrary, match=r"needs 0\.3\.36 with 0\.5\.0"):
        lib.check_version(*versions)


def test_the_build_says_what_it_computes_with() -> None:
    info = lib.build_info()
    lib.check_version(info.binding, info.library)
    assert info.features.startswith("CPU : ")
