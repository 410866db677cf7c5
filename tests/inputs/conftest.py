"""One real server for the whole folder, and what must be as before after every test of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from tests.inputs.asking import PROBE, STEADY, complete, listen, resident, text_of, workers
from tests.serving import Server, serving
from tests.waiting import SECONDS

MOST_GROWTH = 64 * 2**20
"""Bytes of RAM that one input may leave a process with."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    patience = ("--write-timeout", "10")
    with serving("--threads", "1", "--slots", "4", "--max-queue", "64", "--memory-budget", "2GiB", *patience) as server:
        yield server


@pytest.fixture(scope="session")
def probe(server: Server) -> str:
    return text_of(complete(server, **PROBE))


@pytest.fixture(scope="session")
def steady(server: Server) -> str:
    """What the steady stream says when it is alone."""
    return text_of(complete(server, **STEADY))


@pytest.fixture(autouse=True)
def unharmed(server: Server, probe: str, steady: str) -> Iterator[None]:
    """Whatever a test sends: nobody else notices."""
    before, had = workers(server), resident(server)
    has_begun, is_enough = Event(), Event()
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen, server, has_begun, is_enough)
        assert has_begun.wait(SECONDS)
        try:
            yield
        finally:
            is_enough.set()
        heard, was_to_go_on = listening.result()
    assert steady.startswith(heard) if was_to_go_on else heard == steady
    assert text_of(complete(server, **PROBE)) == probe
    assert workers(server) == before
    growths = {pid: has - had[pid] for pid, has in resident(server).items()}
    assert max(growths.values()) < MOST_GROWTH, growths
