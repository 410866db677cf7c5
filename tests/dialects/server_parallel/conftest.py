"""`plait as server-parallel` on the demo model, and on one of random weights whose answers do not end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dialects.server_parallel.asking import ENDLESS, N_PREDICT, OWN, Client
from tests.native import models
from tests.serving import free_port, running


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that does not end."""
    path = tmp_path_factory.mktemp("server-parallel") / "endless.gguf"
    models.write_llama(path, can_end=False)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static files, and one beside them that is nobody's."""
    root = tmp_path_factory.mktemp("files")
    (root / "secret.txt").write_text("secret")
    (root / "public" / "sub").mkdir(parents=True)
    (root / "public" / "sub" / "page.html").write_text("<p>ours</p>")
    return root / "public"


def started(*flags: str) -> Iterator[Client]:
    port = free_port()
    with running(["as", "server-parallel", "--port", str(port), "-t", "1", *flags], port) as server:
        client = Client(server)
        with client.http:
            yield client


@pytest.fixture(scope="package")
def demo(folder: Path) -> Iterator[Client]:
    yield from started("-m", "plait-demo", "-c", "2048", "-np", "2", "-cb", "--path", str(folder))


@pytest.fixture(scope="package")
def two_talkers(endless: Path) -> Iterator[Client]:
    yield from started("-m", str(endless), "-c", str(ENDLESS), "-np", "2", "-cb")


@pytest.fixture
def talker(two_talkers: Client) -> Client:
    """Two slots, and answers that go on until their clients leave, and not to an antiprompt that another test set."""
    with two_talkers.when_quiet().streaming(prompt=" Hi", **OWN) as lines:
        next(lines)
    return two_talkers.when_quiet()


@pytest.fixture(scope="package")
def two_waiters(endless: Path) -> Iterator[Client]:
    yield from started("-m", str(endless), "-c", str(ENDLESS), "-np", "2", "-b", "16")


@pytest.fixture
def waiter(two_waiters: Client) -> Client:
    """The same without continuous batching, and prompts read in small pieces."""
    return two_waiters.when_quiet()


@pytest.fixture(scope="package")
def limited(endless: Path) -> Iterator[Client]:
    """Answers that have a limit, and so an end."""
    yield from started("-m", str(endless), "-c", "4096", "-np", "2", "-n", str(N_PREDICT), "-b", "16")
