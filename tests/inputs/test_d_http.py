"""D: what is wrong before a request's body is understood, or with who sends it."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from urllib.parse import urlsplit

import msgspec
import pytest
from starlette.datastructures import Headers
from starlette.routing import Router

from plait.config import Config
from plait.errors import Unauthorized
from plait.gateway import admin
from plait.gateway.app import DIALECTS
from plait.gateway.http import MAX_PIPELINED
from plait.gateway.table import Table
from plait.gateway.traffic import Traffic
from plait.web.access import KeyCheck
from tests.fakes.fleet import FakeFleet
from tests.inputs.asking import HTTP, all_from, complete, is_refused, say, send, statuses
from tests.serving import Server, serving
from tests.waiting import until

GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"prompt": "a", "max_tokens": 1}'


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    """Another server, with a key."""
    with serving("--threads", "1", "--slots", "1", "--memory-budget", "1GiB", key="sesame") as server:
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """Another, that does not wait long."""
    limits = ("--header-timeout", "1", "--body-timeout", "1")
    with serving("--threads", "1", "--slots", "1", "--memory-budget", "1GiB", *limits) as server:
        yield server


def knock(server: Server, n_seconds: float, data: bytes, drop: bytes = b"") -> bytes:
    """The answer to a head or a body that does not come to its end; it drips, if there is a drop of it."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(data)
        connection.settimeout(0.05)
        deadline, heard = time.monotonic() + n_seconds, b""
        while time.monotonic() < deadline:
            try:
                connection.sendall(drop)
                if not (more := connection.recv(65536)):
                    break
                heard += more
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    return heard


HEADS = {
    "one header": b"x: " + b"y" * 1_000_000,
    "one name": b"y" * 1_000_000,
    "many headers": b"x: y\r\n" * 101,
    "very many headers": b"x: y\r\n" * 100_000,
    "all together": b"".join(b"x%d: %b\r\n" % (i, b"y" * 500) for i in range(90)),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_d1_a_huge_head(server: Server, head: bytes) -> None:
    assert statuses(say(server, GET + head + b"\r\n\r\n")) == [431]


def test_d1_a_huge_path(server: Server) -> None:
    assert statuses(say(server, b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")) == [414]


SLOW = {
    "a head": (GET + b"x: ", b"y", [408]),
    "no head": (b"", b"", [408]),
    "a body": (POST + b"content-length: 1000\r\n\r\n{", b" ", [408]),
    "chunks": (POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n", [408]),
    "empty lines": (b"\r\n", b"\r\n", [408]),
    "empty lines behind an answer": (GET + b"\r\n", b"\r\n", [200, 408]),
}


@pytest.mark.parametrize(("data", "drop", "answers"), SLOW.values(), ids=SLOW.keys())
def test_d2_who_sends_slowly_is_not_waited_for(hasty: Server, data: bytes, drop: bytes, answers: list[int]) -> None:
    assert statuses(knock(hasty, 30, data, drop)) == answers


def test_d3_who_does_not_read_is_cut_off_and_holds_up_nobody(server: Server) -> None:
    """Of an answer that no buffers on its way can hold, only the first line is read. The steady stream ends, too."""
    fields = {"prompt": ["owl " * 1500] * 32, "n": 8, "max_tokens": 1, "echo": True, "stream": True}
    body = msgspec.json.encode(fields)
    address = urlsplit(server.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect((address.hostname, address.port))
        connection.sendall(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        assert connection.recv(12) == b"HTTP/1.1 200"
        complete(server, max_tokens=50)
        until(lambda: server.metric("plait_http_running") == 1)  # who asks
        assert b"[DONE]" not in b"".join(all_from(connection))


def test_d4_a_gigabyte_is_refused_unread(server: Server) -> None:
    assert statuses(say(server, POST + b"content-length: 1000000000\r\n\r\n{")) == [413]


def test_d4_who_sends_all_before_it_reads_is_told_too(server: Server) -> None:
    """As many HTTP libraries do."""
    address = urlsplit(server.url)
    for _ in range(5):
        connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
        connection.request("POST", "/v1/completions", b" " * 6_000_000, {"content-type": "application/json"})
        assert connection.getresponse().status == 413
        connection.close()


def test_d4_chunks_are_counted(server: Server) -> None:
    answers = say(server, POST + b"transfer-encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 80)
    assert statuses(answers) == [413]


def test_d4_chunks_of_one_byte_are_a_body(server: Server) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY.ljust(20_000))
    close = b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert statuses(say(server, POST + close + chunks + b"0\r\n\r\n")) == [200]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_d4_nothing_is_unpacked(server: Server, coding: str) -> None:
    assert is_refused(send(server, BODY, content_encoding=coding), status=415)


@pytest.mark.parametrize("body", [b"[" * 4_000_000, b'{"a":' * 800_000, b'{"prompt": ' + b"[" * 65 + b"]" * 65 + b"}"])
def test_d5_towers_of_brackets(server: Server, body: bytes) -> None:
    assert is_refused(send(server, body))


HOSTS = ["localhost/v1/models?", "localhost/livez?", "livez", "/livez", "localhost#", "@localhost", "localhost\\livez"]


@pytest.mark.parametrize("host", HOSTS)
def test_d6_a_host_is_no_path(locked: Server, host: str) -> None:
    for path in ("/v1/models", "/metrics"):
        assert HTTP.get(locked.url + path, headers={"host": host}).status_code == 401


@pytest.mark.parametrize("host", HOSTS)
def test_d6_a_host_that_is_none_is_refused(server: Server, host: str) -> None:
    assert HTTP.get(f"{server.url}/v1/models", headers={"host": host}).status_code == 403


def test_d7_every_route_wants_the_key(locked: Server) -> None:
    fleet, traffic = FakeFleet(), Traffic()
    own, aliases = admin.routes(fleet, traffic, bytes), admin.aliases(fleet, traffic)
    routes = Table(DIALECTS, Config().server.dialect, fleet, own, aliases).routes()
    assert {route.path for route in routes} > {"/livez", "/health", "/v1/models"}
    for route in routes:
        for method in route.methods or ():
            path = route.path.replace("{", "").replace("}", "").replace(":path", "")
            answer = HTTP.request(method, locked.url + path)
            assert answer.status_code == (200 if path == "/livez" else 401), (method, path)


class Watched(list[bytes]):
    """Keys' digests, and how many of them were looked at."""

    n_seen = 0

    def __iter__(self) -> Iterator[bytes]:
        for digest in super().__iter__():
            self.n_seen += 1
            yield digest


@pytest.mark.parametrize("key", ["first", "last", "none"])
def test_d8_every_key_is_compared_whichever_is_right(server: Server, key: str) -> None:
    """A clock shows nothing on a busy machine; that each is compared in constant time is `hmac`'s promise."""
    gate = KeyCheck(Router([]), ["first", "b" * 1000, "last"], ())
    gate.digests = watched = Watched(gate.digests)
    with suppress(Unauthorized):
        gate.tenant(Headers({"x-api-key": key}))
    assert watched.n_seen == 3
    assert {len(digest) for digest in watched} == {32}


@pytest.mark.parametrize("key", ["sesam", "sesame2", "SESAME", "sesame\t2", "*"])
def test_d8_a_wrong_key_is_none(locked: Server, key: str) -> None:
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert HTTP.get(f"{locked.url}/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_d9_a_page_elsewhere_cannot_post(server: Server, media_type: str) -> None:
    assert is_refused(send(server, BODY, content_type=media_type), status=415)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "10.0.0.1:80"]
)
def test_d9_another_name_for_this_machine(server: Server, host: str) -> None:
    assert is_refused(send(server, BODY, host=host), status=403)


def test_d9_no_origin_is_welcome(server: Server) -> None:
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = HTTP.options(f"{server.url}/v1/completions", headers=preflight)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


SMUGGLED = {
    "both lengths": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "a signed length": POST + b"content-length: +4\r\n\r\nabcd",
    "chunked, identity": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": POST.replace(b"\r\n", b"\n") + b"\n",
    "a folded header": GET + b"x: a\r\n b\r\n\r\n",
    "a space before the colon": POST + b"content-length : 4\r\n\r\nabcd",
    "a nul in a header": GET + b"x: a\0b\r\n\r\n",
    "a chunk's length that is none": POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a huge chunk": POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_d10_what_two_servers_would_read_differently(server: Server, data: bytes) -> None:
    assert statuses(say(server, data + GET + b"\r\n")) == [400]


PATHS = [
    "//v1/models",
    "/v1//models",
    "/v1/%2e%2e/livez",
    "/livez/../v1/models",
    "/v1/../livez",
    "/livez%00",
    "/livez/",
    "/%6civez/x",
]


@pytest.mark.parametrize("path", [*PATHS, "/LIVEZ", "/livez;x", "/livez\\", "/./livez"])
def test_d11_a_path_is_what_it_says(server: Server, locked: Server, path: str) -> None:
    line = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
    assert statuses(say(server, line))[0] in (400, 404)
    assert statuses(say(locked, line))[0] in (400, 401)


LAST = GET + b"connection: close\r\n\r\n"


@pytest.mark.parametrize("n", [MAX_PIPELINED + 1, 10_000])
def test_d12_who_lays_many_requests_behind_another_is_cut_off_unanswered(server: Server, n: int) -> None:
    assert statuses(say(server, (GET + b"\r\n") * n + LAST)) == []


def test_d12_some_may_lie_there(server: Server) -> None:
    answers = say(server, (GET + b"\r\n") * MAX_PIPELINED + LAST)
    assert statuses(answers) == [200] * (MAX_PIPELINED + 1)


def test_d13_a_wrong_key_costs_no_body(locked: Server) -> None:
    head = POST + b"x-api-key: open\r\ncontent-length: 1000000\r\n\r\n"
    answers = say(locked, head)
    assert statuses(answers) == [401]
    assert b"connection: close" in answers.lower()
