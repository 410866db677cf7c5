"""What examples/ shows works as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import free_ports

EXAMPLES = Path(__file__).parents[2] / "examples"

SIGNS = (
    ["\n\nOnce\n upon\n"],
    ['{"Message":"llama3-8b Model loaded"}', '{"Message":" ', '{"Message":"llama3-8b"}'],
    ['data: {"event": "start", "count": 8}', '"event": "stream", "index": 7', 'data: {"event": "done", "count": 8}'],
    ['"user_name":"User:"}', 'data: {"content":"', '"user_name":"Human:"}'],
    ['{"generated_text":"', '"tokens_generated":', '{"status":"healthy"}', '{"model":"plait-demo",'],
)
"""In each program's section, of each of its answers, in order."""


def five(*arguments: str) -> subprocess.CompletedProcess[str]:
    said = {"PORTS": " ".join(map(str, free_ports(5))), "PLAIT": str(Path(sys.executable).with_name("plait"))}
    return subprocess.run(
        [EXAMPLES / "five.sh", *arguments], env=os.environ | said, capture_output=True, text=True, timeout=170
    )


@pytest.mark.timeout(180)
def test_the_five_programs_answer_what_their_readmes_ask() -> None:
    ran = five()
    assert ran.returncode == 0, ran.stderr
    sections = ran.stdout.split("\n== plait as ")[1:]
    for section, signs in zip(sections, SIGNS, strict=True):
        found = [section.find(sign) for sign in signs]
        assert -1 not in found
        assert found == sorted(found)


@pytest.mark.timeout(180)
def test_a_server_that_does_not_start_ends_the_examples() -> None:
    ran = five("none.gguf")
    assert ran.returncode == 1
    assert "none.gguf" in ran.stderr
