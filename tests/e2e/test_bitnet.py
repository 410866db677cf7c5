"""The file that people have of BitNet is served as it is, and converted only once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fakes.bitnet import write_official
from tests.fakes.gguf_file import TENSORS, Weights, write_gguf
from tests.serving import Server, free_port, running

SMALL = ("--threads", "1", "--slots", "2", "--ctx-size", "512")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bitnet")


@pytest.fixture(scope="module")
def official(home: Path) -> Path:
    return write_official(home / "ggml-model-i2_s.gguf")


@pytest.fixture
def server(home: Path, official: Path) -> Iterator[Server]:
    port = free_port()
    command = ["serve", "-m", str(official), "--port", str(port), "--log-level", "warning", *SMALL]
    with running(command, port, env={"XDG_CACHE_HOME": str(home)}) as server:
        yield server


def converted(home: Path) -> dict[str, int]:
    """The converted files, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (home / "plait" / "converted").iterdir()}


def complete(server: Server) -> Any:
    asked = {"prompt": "the thing", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    answer = httpx2.post(f"{server.url}/v1/completions", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_it_is_converted_once_and_served(home: Path, server: Server) -> None:
    said = complete(server)
    before = converted(home)
    assert len(before) == 1
    port = free_port()
    command = ["as", "bitnet", "-m", server.get("/admin/models").json()[0]["path"], "--host", "127.0.0.1"]
    env = {"XDG_CACHE_HOME": str(home), "MAX_THREADS": "1", "PLAIT_CTX_SIZE": "512", "PLAIT_LOG_LEVEL": "warning"}
    with running([*command, "--port", str(port)], port, ready="/health", env=env) as stand_in:
        asked = {"prompt": "the thing", "max_tokens": 8, "temperature": 0, "conversation_mode": False}
        answer = httpx2.post(f"{stand_in.url}/generate", json=asked, timeout=60).json()
        assert answer["generated_text"]
        assert said.strip().startswith(answer["generated_text"])
        assert httpx2.post(f"{stand_in.url}/generate", json={"prompt": "hi", "max_tokens": 2}, timeout=60).is_success
        assert stand_in.get("/model_info").json()["model_path"].endswith("ggml-model-i2_s.gguf")
    assert converted(home) == before


def test_what_cannot_be_served_ends_the_start_in_words(tmp_path: Path, official: Path) -> None:
    tables = Weights("blk.0.attn_q.weight", (250, 3), 38, 64)
    write_gguf(tmp_path / "tl1.gguf", {"general.architecture": "bitnet-b1.58"}, [*TENSORS, tables])
    command = [sys.executable, "-m", "plait", "serve", "--port", "0"]
    refused = [["-m", str(tmp_path / "tl1.gguf")], ["-m", str(official), "-ngl", "30"]]
    for arguments, words in zip(refused, ("TL1", "computed on the CPU"), strict=True):
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, words in ended.stderr) == (1, True), ended.stderr
