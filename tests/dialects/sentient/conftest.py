"""`plait as sentient`, which begins without a model, and the demo model once it is loaded."""

from collections.abc import Iterator

import pytest

from tests.dialects.sentient.asking import load
from tests.serving import Server, free_port, running


@pytest.fixture(scope="package")
def empty_server() -> Iterator[Server]:
    """As it begins, or as other tests have left it."""
    port = free_port()
    env = {"PLAIT_THREADS": "1", "PLAIT_LOG_LEVEL": "warning"}
    with running(["as", "sentient", "-p", str(port)], port, env=env, ready="/livez") as server:
        yield server


@pytest.fixture(scope="package")
def server(empty_server: Server) -> Server:
    """With the demo model, loaded as `demo`."""
    assert load(empty_server, "demo").content == b'{"Message":"demo Model loaded"}'
    return empty_server
