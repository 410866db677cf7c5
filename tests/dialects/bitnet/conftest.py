"""`plait as bitnet` with two instances of the demo model."""

from collections.abc import Iterator

import pytest

from tests.serving import Server, free_port, running
from tests.waiting import until

N_INSTANCES = 2


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    port = free_port()
    command = ["as", "bitnet", "-m", "plait-demo", "--host", "127.0.0.1", "--port", str(port)]
    env = {"MODEL_INSTANCES": str(N_INSTANCES), "MAX_THREADS": "1", "PLAIT_LOG_LEVEL": "warning"}
    with running(command, port, env=env, ready="/health") as server:
        until(lambda: server.metric("plait_worker_up") == N_INSTANCES)
        yield server
