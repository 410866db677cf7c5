"""A model hub on this machine: as much of the Hugging Face hub's protocol as a download needs.

`files` holds what it has by repository and name. It counts what it sends, and can hang up in the middle of a file.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves in a thread of its own until it is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.is_mad = False
        """It answers with a page for people, as a hotel's network does."""
        self.hang_up_after: int | None = None
        """The next file that is sent breaks off here."""
        self.ranges: list[str] = []
        """What parts of files were asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub, while the block runs."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class Answer(BaseHTTPRequestHandler):
    """One request to the hub."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        api, _, repo = self.path.partition("/api/models/")
        if not api and repo:
            self.answer_info(repo)
        else:
            repo, _, file = self.path.lstrip("/").partition("/resolve/main/")
            self.answer_file(repo, file)

    def answer_info(self, repo: str) -> None:
        if repo not in self.server.files:
            return self.refuse(401, "RepoNotFound")
        if self.server.is_mad:
            return self.send(200, b"<html>Welcome! Room number?</html>")
        siblings = [{"rfilename": name} for name in self.server.files[repo]]
        self.send(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def answer_file(self, repo: str, file: str) -> None:
        if repo in self.server.gated:
            return self.refuse(403, "GatedRepo")
        data = self.server.files[repo].get(file)
        if data is None:
            return self.refuse(404, "EntryNotFound")
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if "Range" in self.headers:
            self.server.ranges.append(self.headers["Range"])
        about = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if begin:
            about["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self.send(206 if begin else 200, data[begin:], about)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code} if code else {})

    def send(self, status: int, body: bytes, about: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(about or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_body(body)

    def send_body(self, body: bytes) -> None:
        if self.path.endswith(".gguf") and self.server.hang_up_after is not None:
            body = body[: self.server.hang_up_after]
            self.server.hang_up_after = None
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""
