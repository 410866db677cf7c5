"""The command answers at once, and says in one line what went wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plait import __version__
from plait.cli.main import SUBCOMMANDS

PLAIT = Path(sys.executable).with_name("plait")


def plait(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real command, on a machine without settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PLAIT_", "HF_"))}
    return subprocess.run([PLAIT, *args], capture_output=True, text=True, timeout=60, env={**clean, **env}, check=False)


def refusal(*args: str, code: int, **env: str) -> str:
    """What the command says when it gives up: one line, and nothing else."""
    done = plait(*args, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("plait: ")
    return done.stderr.removeprefix("plait: ").rstrip()


def test_the_version_is_said() -> None:
    assert plait("--version").stdout == f"plait {__version__}\n"


def test_help_names_every_command() -> None:
    shown = plait("--help").stdout
    assert all(sub.help in shown and f"\n  {name} " in shown for name, sub in SUBCOMMANDS.items() if sub.help)


def test_help_imports_no_command() -> None:
    script = "import sys, plait.cli.main as cli\ntry: cli.main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False)
    assert "Usage: plait" in done.stdout
    assert not {"plait.cli.serve", "rich", "huggingface_hub", "starlette", "numpy"} & set(done.stdout.split())


def test_python_dash_m_is_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "plait", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"plait {__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["serve", "--nonsense"], "No such option"),
        (["serve", "--port"], "requires an argument"),
        (["serve", "--port", "http"], "--port: expected a whole number from 0 to 65535, got 'http'"),
        (["serve", "--config", "none.toml"], "none.toml: No such file"),
        (["chat", "--temp", "-1"], "Invalid value for '--temp'"),
    ],
)
def test_what_is_said_wrongly_ends_with_2(args: list[str], said: str) -> None:
    assert said in refusal(*args, code=2)


def test_a_wrong_variable_ends_with_2() -> None:
    assert refusal("serve", code=2, PLAIT_PORT="http").startswith("PLAIT_PORT: expected")


def test_a_missing_model_ends_with_1() -> None:
    assert refusal("serve", "none.gguf", code=1) == "there is no file none.gguf"


def test_a_hub_out_of_reach_ends_with_1(tmp_path: Path) -> None:
    said = refusal("serve", "hf:owner/repo", code=1, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_CACHE=str(tmp_path))
    assert said.startswith("http://127.0.0.1:1 cannot be reached to fetch owner/repo")
