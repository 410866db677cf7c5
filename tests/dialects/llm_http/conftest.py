"""`plait as llm-http` with the demo model, for all tests that need no flags of their own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server, free_port, running


@contextlib.contextmanager
def llm_http(*arguments: str, **env: str) -> Iterator[Server]:
    """The program with these flags, ready."""
    port = free_port()
    command = ["as", "llm-http", "-m", "plait-demo", "-P", str(port), "-t", "1", *arguments]
    with running(command, port, env={"PLAIT_LOG_LEVEL": "warning"} | env) as server:
        yield server


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps prompts; there is none until it does."""
    return tmp_path_factory.mktemp("llm-http") / "prompts"


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    with llm_http("-f", "--cache-dir", str(folder)) as server:
        yield server
