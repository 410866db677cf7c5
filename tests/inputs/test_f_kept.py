"""F: what lies in a cache directory when a server starts, spoilt by somebody in between."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inputs.asking import TALE, complete, text_of
from tests.serving import Server, serving

ASKED = {"prompt": TALE * 40, "max_tokens": 8, "temperature": 0}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    """Code that Python's pickle would run."""
    path.write_bytes(b"cos\nsystem\n(S'touch " + bytes(path.with_name("pwned")) + b"'\ntR.")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def ask(folder: Path) -> tuple[str, int]:
    """What a server with this cache says, and how much of the prompt came from its disk."""
    with serving("--threads", "1", "--slots", "1", "--memory-budget", "1GiB", "--cache-dir", str(folder)) as own:
        answer = complete(own, **ASKED)
    return text_of(answer), answer.json()["usage"]["prompt_tokens_details"]["cached_from"]["disk"]


@pytest.mark.parametrize("spoil", [cut, flip, swap, empty])
def test_f4_f5_a_spoilt_cache_is_not_believed(server: Server, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    said, _ = ask(tmp_path)
    assert kept(tmp_path)
    for path in kept(tmp_path):
        spoil(path)
    assert ask(tmp_path) == (said, 0)
    assert not list(tmp_path.rglob("pwned"))


def test_f5_nobody_else_may_look_into_it(server: Server, tmp_path: Path) -> None:
    ask(tmp_path / "cache")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*") if path.is_dir()} == {0}


@pytest.mark.parametrize("process", ["plait.worker.service", "plait.gateway.server"])
def test_f5_no_process_imports_a_cache_of_pickles(process: str) -> None:
    code = f"import sys, {process}, plait.llama.lib; sys.exit('diskcache' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
