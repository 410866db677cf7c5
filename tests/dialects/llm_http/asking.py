"""Asking llm-http as curl does: a body without a word about what it is. And seeing how the answer was framed."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec

from tests.serving import Server

PROMPT = "Once upon a time there was a little"


def ask(server: Server, prompt: str = PROMPT, **fields: object) -> httpx2.Response:
    return post(server, msgspec.json.encode({"prompt": prompt} | fields))


def post(server: Server, body: bytes, path: str = "/stream", **headers: str) -> httpx2.Response:
    return httpx2.post(server.url + path, content=body, headers=headers, timeout=60)


def said(server: Server, prompt: str = PROMPT, **fields: object) -> list[bytes]:
    """The chunks that follow those of the prompt."""
    n_prompt = len(chunks(server, prompt, num_predict=0))
    return chunks(server, prompt, **fields)[n_prompt:]


def chunks(server: Server, prompt: str = PROMPT, **fields: object) -> list[bytes]:
    """The HTTP chunks of an answer, of which httpx would make one text."""
    head, _, body = exchange(server, msgspec.json.encode({"prompt": prompt} | fields)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return list(_chunks(body))


def exchange(server: Server, body: bytes) -> bytes:
    """All the bytes that come back for a body."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        head = f"POST /stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def _chunks(body: bytes) -> Iterator[bytes]:
    while not body.startswith(b"0\r\n\r\n"):
        size, _, rest = body.partition(b"\r\n")
        n = int(size, 16)
        assert rest[n : n + 2] == b"\r\n"
        yield rest[:n]
        body = rest[n + 2 :]
    assert body == b"0\r\n\r\n"


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file
