"""`python -m benchmarks` says what there is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def say(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_who_asks_for_help_is_told_what_there_is(flag: str) -> None:
    helped = say(flag)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert {"all", "chaos", "step", "tree"} <= set(helped.stdout.split())


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_who_names_nothing_that_there_is_is_told_so_as_an_error(arguments: tuple[str, ...]) -> None:
    refused = say(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("usage: python -m benchmarks {all,")
