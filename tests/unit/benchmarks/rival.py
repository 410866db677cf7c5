"""A rival for tests: says words at once, and can be told how long a turn takes and when to be gone."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.rivals.base import Build, NotThere, Setup
from benchmarks.rivals.url import Elsewhere
from benchmarks.words import n_tokens


class Parrot(ThreadingHTTPServer):
    """Speaks as much of OpenAI's dialect as benchmarks ask for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server_port


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.say("application/json", b"{}")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            self.say("application/json", json.dumps({"usage": {"prompt_tokens": n_tokens(asked["prompt"])}}).encode())
            return
        event = b"data: " + json.dumps({"choices": [{"text": " w1", "index": 0}]}).encode() + b"\n\n"
        self.say("text/event-stream", event * asked["max_tokens"] * asked.get("n", 1))

    def say(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class FakeRival:
    """`is_there=False`: it cannot be started."""

    name = "fake"

    def __init__(self, *, is_there: bool = True) -> None:
        self.is_there = is_there

    def install(self) -> None: ...

    def build(self) -> Build:
        return Build("fake", "CPU : FAST = 1 | SLOW = 0")

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Elsewhere]:
        if not self.is_there:
            raise NotThere("not in the mood")
        with Parrot() as parrot:
            yield Elsewhere(parrot.address)
            parrot.shutdown()
