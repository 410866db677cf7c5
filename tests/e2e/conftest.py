"""A real server with the demo model, for all tests that do not need one of their own."""

from collections.abc import Iterator

import pytest

from tests.serving import Server, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    # One thread: kernels that wait for each other crawl where other processes take the cores from them.
    with serving("--threads", "1") as server:
        yield server


@pytest.fixture(scope="session")
def server_url(server: Server) -> str:
    return server.url
