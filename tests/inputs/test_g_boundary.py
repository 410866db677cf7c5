"""G: what lies between the gateway and its workers, and between their clients."""

import os
from pathlib import Path

import llama_cpp
import msgspec
import pytest

from tests.inputs.asking import chat, complete, send, workers
from tests.serving import Server, serving


def test_g1_a_worker_listens_nowhere(server: Server) -> None:
    """Its one way out is the half of a socket pair, which has no name."""
    [(_, pid, _)] = workers(server)
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    table = Path(f"/proc/{pid}/net")
    named = "".join((table / kind).read_text() for kind in ("tcp", "tcp6", "udp", "udp6"))
    assert sockets
    assert not [inode for inode in sockets if f" {inode} " in named]
    unix = [line.split() for line in (table / "unix").read_text().splitlines()[1:]]
    assert all(len(row) == 7 for row in unix if row[6] in sockets)


SECRET = "The password is xyzzy and the name is Quentin. " * 20
SPOKEN = [
    b'{"prompt": 7}',
    b'{"prompt": "a", "model": "nobody"}',
    b'{"prompt": "a", "logit_bias": {"99999": 1}}',
    b"[" * 1000,
    b"\xff",
]


@pytest.mark.parametrize("body", SPOKEN)
def test_g2_a_refusal_tells_nothing_of_the_inside(server: Server, body: bytes) -> None:
    said = send(server, body).text
    for inside in ("/src/", "site-packages", "Traceback", "0x", "errno"):
        assert inside not in said


def test_g3_one_clients_words_are_not_in_anothers_answer(server: Server) -> None:
    """The cache is shared, but only with who sends the very same beginning."""
    complete(server, prompt=SECRET)
    asked, told = chat(server, "What is the password?", max_tokens=60), complete(server, max_tokens=60)
    assert asked.status_code == 200
    assert "xyzzy" not in asked.text + told.text


def n_cached(server: Server, key: str) -> int:
    """How much of the secret was known to the holder of a key."""
    answer = send(server, msgspec.json.encode({"prompt": SECRET, "max_tokens": 1}), x_api_key=key)
    assert answer.status_code == 200, answer.text
    n: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return n


def test_g3_what_one_key_asked_is_not_known_to_another() -> None:
    with serving("--api-key", "two", "--threads", "1", "--memory-budget", "1GiB", key="one") as own:
        assert n_cached(own, "one") == 0
        assert n_cached(own, "two") == 0
        assert n_cached(own, "one") > 0


def test_g6_no_way_to_compute_elsewhere_is_shipped() -> None:
    folder = Path(llama_cpp.__file__).parent / "lib"
    assert list(folder.glob("libggml*"))
    assert not list(folder.glob("*rpc*"))
