"""What the tests of this folder ask a server, and how they look at its workers."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx2
import msgspec

from tests.serving import Server

TALE = "Once upon a time there was a little"
PROBE = {"prompt": TALE, "max_tokens": 8, "temperature": 0, "cache_prompt": False}
STEADY = {"prompt": f"{TALE} girl", "max_tokens": 1000, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
JSON = {"content-type": "application/json"}
HTTP = httpx2.Client(timeout=60)
"""One for all: to make one takes longer than most requests."""
AT_ONCE = 5.0
"""Seconds for a refusal that needs no engine, on a machine with other things to do. That it takes less than one of the
processor is tests/e2e/test_serving.py's to show."""


def post(server: Server, path: str = "/v1/completions", /, **fields: object) -> httpx2.Response:
    return send(server, msgspec.json.encode(fields), path)


def send(server: Server, body: bytes, path: str = "/v1/completions", **headers: str) -> httpx2.Response:
    """A body as it is."""
    named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTP.post(server.url + path, content=body, headers=named)


def complete(server: Server, **fields: object) -> httpx2.Response:
    """A completion that is answered, and is short unless it says otherwise."""
    answer = post(server, **{"prompt": TALE, "max_tokens": 4} | fields)
    assert answer.status_code == 200, answer.text
    return answer


def chat(server: Server, content: object, **fields: object) -> httpx2.Response:
    turns = [{"role": "user", "content": content}]
    return post(server, "/v1/chat/completions", **{"messages": turns, "max_tokens": 4} | fields)


def text_of(answer: httpx2.Response) -> str:
    text: str = answer.json()["choices"][0]["text"]
    return text


def n_prompt(answer: httpx2.Response) -> int:
    assert answer.status_code == 200, answer.text
    n: int = answer.json()["usage"]["prompt_tokens"]
    return n


def is_refused(answer: httpx2.Response, param: str | None = None, status: int = 400) -> bool:
    """Whether it is an error in the one shape that errors have, at once, and of this field if one is named."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert param is None or (error["param"] or "").startswith(param), error
    return bool(answer.elapsed.total_seconds() < AT_ONCE)


@contextmanager
def streaming(server: Server, **fields: object) -> Iterator[Iterator[str]]:
    """The texts of a streamed completion; an error among them is one of ours."""
    body = fields | {"stream": True}
    with HTTP.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        chunks = (line[6:] for line in answer.iter_lines() if line.startswith("data: {"))
        yield (msgspec.json.decode(chunk)["choices"][0]["text"] for chunk in chunks)


def listen(server: Server, has_begun: Event, is_enough: Event) -> tuple[str, bool]:
    """What the steady stream says until it is enough, and whether it was to say more."""
    heard = ""
    with streaming(server, **STEADY) as texts:
        for text in texts:
            has_begun.set()
            heard += text
            if is_enough.is_set():
                return heard, True
    return heard, False


def workers(server: Server) -> list[tuple[str, int, int]]:
    """Each worker: its model, its process, and how many it had before."""
    models = HTTP.get(f"{server.url}/admin/models").json()
    return [(model["name"], each["pid"], each["n_restarts"]) for model in models for each in model["replicas"]]


def resident(server: Server) -> dict[int, int]:
    """What RAM the gateway and its workers have, in bytes, by process."""
    return {pid: n_resident(pid) for pid in (server.process.pid, *(pid for _, pid, _ in workers(server)))}


def n_resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (n_kib,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(n_kib) * 1024


def say(server: Server, data: bytes) -> bytes:
    """What comes back on a connection on which these bytes are sent, until the server closes it."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data)
        return b"".join(all_from(connection))


def all_from(connection: socket.socket) -> Iterator[bytes]:
    """All that comes. What was said before a reset can be read after it."""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            yield data


def statuses(answers: bytes) -> list[int]:
    """Of all answers on one connection."""
    return [int(rest.split(b" ", 1)[0]) for rest in answers.split(b"HTTP/1.1 ")[1:]]
