"""The list of models says what is here, and leaves out what is broken."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plait.cli.main import plait
from plait.cli.models import count
from tests.fakes.gguf_file import write_gguf


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without models."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def models(*args: str) -> Result:
    return CliRunner().invoke(plait, ["models", *args], catch_exceptions=False)


def test_an_empty_machine_is_told_what_to_do(home: Path) -> None:
    assert "hf:owner/repo" in models().output
    assert json.loads(models("--json").output) == []


def test_the_table_has_a_line_for_a_model(home: Path) -> None:
    path = write_gguf(home / "tiny[red].gguf")
    shown = models().output
    assert "tiny[red]" in shown
    assert "2.11 k" in shown
    assert path.name in shown.replace("\n", "").replace(" ", "")


def test_json_has_the_same(home: Path) -> None:
    path = write_gguf(home / "tiny.gguf")
    assert json.loads(models("--json").output) == [
        {
            "name": "tiny",
            "n_bytes": path.stat().st_size,
            "n_params": 64 * 32 + 64,
            "quantization": "F16",
            "where": "this directory",
            "path": str(path),
        }
    ]


def test_broken_files_are_left_out(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gguf(home / "good.gguf")
    (home / "bad.gguf").write_bytes(b"GGUF")
    assert [model["name"] for model in json.loads(models("--json").output)] == ["good"]
    assert "bad.gguf" in caplog.text


@pytest.mark.parametrize(
    ("n", "said"), [(7, "7"), (1500, "1.5 k"), (135e6, "135 M"), (1.24e9, "1.24 B"), (2e12, "2 T")]
)
def test_counts_are_short(n: float, said: str) -> None:
    assert count(n) == said
