"""`plait as srb` with the demo model, for all rows of the table."""

from collections.abc import Iterator

import pytest

from plait.config import Engine
from plait.fleet.registry import DEMO, resolve
from plait.llama.model import Model
from tests.dialects.srb.asking import Tokens
from tests.serving import Server, free_port, running


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    port = free_port()
    # Elsewhere than where the program listens, which is on all addresses.
    env = {"PLAIT_LISTEN": f"tcp://127.0.0.1:{port}", "PLAIT_LOG_LEVEL": "warning"}
    with running(["as", "srb", "--model", DEMO, "--args", "-t 1"], port, env=env, ready="/health") as server:
        yield server


@pytest.fixture(scope="package")
def tokens() -> Tokens:
    """Tokens of the demo model that a test may have it say, whatever it has learnt."""
    with Model(str(resolve(DEMO).path), Engine(threads=1)) as model:
        (period,) = model.tokenize(".", add_special=False, parse_special=False)
        (letter,) = model.tokenize("b", add_special=False, parse_special=False)
        return Tokens(period, letter, min(model.end_tokens))
