"""The commands as they are used: in a terminal, in a pipe, and in a service."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from plait.config import format_bytes
from plait.fleet.registry import DEMO, resolve
from tests.fakes.hub import running_hub
from tests.native.models import write_llama
from tests.waiting import until

PLAIT = ["env", "PLAIT_PROBE_SECONDS=0", sys.executable, "-m", "plait"]
SECONDS = 60.0


class Terminal:
    """A command in a terminal of its own: what it has shown, and what is typed."""

    def __init__(self, *args: str) -> None:
        self.keyboard, screen = pty.openpty()
        self.shown = b""
        command = ["setsid", "--ctty", "--wait", *PLAIT, *args]
        self.process = subprocess.Popen(command, stdin=screen, stdout=screen, stderr=screen)
        os.close(screen)
        os.set_blocking(self.keyboard, False)

    def shows(self, pattern: bytes) -> bool:
        """Whether this is on the screen by now."""
        try:
            self.shown += os.read(self.keyboard, 65536)
        except BlockingIOError:
            pass
        except OSError:
            assert self.process.wait(SECONDS) == 0, self.shown
        return re.search(pattern, self.shown) is not None

    def type(self, text: bytes) -> None:
        self.shown = b""
        os.write(self.keyboard, text)


@contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    one = Terminal(*args)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        os.close(one.keyboard)


PROMPT = rb"> $"
CTRL_C, CTRL_D = b"\x03", b"\x04"


def test_ctrl_c_stops_an_answer_and_ctrl_d_the_conversation(tmp_path: Path) -> None:
    """A model of random weights, as its answer goes on for as long as there is room."""
    write_llama(tmp_path / "endless.gguf", can_end=False)
    with terminal("chat", "-m", str(tmp_path / "endless.gguf"), "-c", "65536", "--temp", "0") as chat:
        until(lambda: chat.shows(PROMPT), SECONDS)
        for _ in range(2):
            chat.type(b"Go on.\r")
            until(lambda: chat.shows(rb"Go on\.\r\n.{100}"), SECONDS)
            chat.type(CTRL_C)
            until(lambda: chat.shows(PROMPT), SECONDS)
        chat.type(CTRL_D)
        assert chat.process.wait(SECONDS) == 0


def test_questions_may_come_from_a_pipe() -> None:
    asked = "Hello.\n\n/clear\nHello.\n/exit\nnever asked\n"
    chat = [*PLAIT, "chat", "--temp", "0", "--max-tokens", "5", "--log-level", "warning"]
    done = subprocess.run(chat, input=asked, capture_output=True, text=True, timeout=SECONDS, check=True)
    first, second = done.stdout.splitlines()
    assert first == second != ""
    assert done.stderr == ""


def test_a_model_is_fetched_once_and_then_found_without_a_hub(tmp_path: Path) -> None:
    chat = [*PLAIT, "chat", "-m", "hf:owner/Tiny-GGUF", "--max-tokens", "3", "--seed", "1"]
    env, demo = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}, resolve(DEMO).path.read_bytes()
    with running_hub() as hub:
        hub.files["owner/Tiny-GGUF"] = {"tiny-Q8_0.gguf": demo}
        env["HF_ENDPOINT"] = hub.url
        first = subprocess.run(chat, input="Hi", capture_output=True, text=True, env=env, timeout=SECONDS, check=True)
    env["HF_HUB_OFFLINE"] = "1"
    second = subprocess.run(chat, input="Hi", capture_output=True, text=True, env=env, timeout=SECONDS, check=True)
    assert first.stderr.splitlines() == [
        f"fetching tiny-Q8_0.gguf, {format_bytes(len(demo))}",
        "fetched tiny-Q8_0.gguf",
    ]
    assert first.stdout == second.stdout != ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_where_it_is_and_ends_when_told(number: signal.Signals) -> None:
    command = [*PLAIT, "serve", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        block = "".join(line for line in takewhile(lambda line: not line.startswith("ready"), process.stdout))
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert "demo model" in block
    assert re.search(r"^address +http://127\.0\.0\.1:\d+$", block, re.MULTILINE)
    assert (process.returncode, errors) == (0, "")


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*PLAIT, "serve", "--port", port], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    assert done.returncode != 0
    assert re.fullmatch(r"plait: .*[Aa]ddress already in use.*\n", done.stderr)
