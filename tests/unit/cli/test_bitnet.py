"""`plait as bitnet`: its environment, and which model it takes."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plait.cli.launchers import bitnet_http
from plait.cli.launchers.bitnet_http import MODEL


def run(*args: str, **env: str) -> Result:
    return CliRunner().invoke(bitnet_http.command, args, env=env, terminal_width=100)


def test_help_shows_the_defaults_and_the_variables() -> None:
    shown = run("--help").output
    assert all(word in shown for word in ("MAX_THREADS; default: 4", "MODEL_INSTANCES; default: 1", "0.0.0.0", "8000"))


def test_without_a_model_the_path_and_the_flag_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run()
    assert refused.exit_code == 2
    assert all(words in refused.output for words in (str(MODEL), str(tmp_path), "-m MODEL"))


def test_the_models_place_is_the_readmes() -> None:
    assert str(MODEL) == "models/BitNet-b1.58-2B-4T/ggml-model-i2_s.gguf"


@pytest.mark.parametrize(("name", "value"), [("MAX_THREADS", "0"), ("MAX_THREADS", "x"), ("MODEL_INSTANCES", "65")])
def test_a_variable_that_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    refused = run("-m", "plait-demo", **{name: value})
    assert refused.exit_code == 2
    assert name in refused.output
