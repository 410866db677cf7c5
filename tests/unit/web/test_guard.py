"""What a body must be, and what it is told when it is not."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext

import anyio
import httpx2
import pytest
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.errors import BadRequest, BodyTooLarge, PlaitError, SlowRequest, UnsupportedMedia
from plait.web import guard

CAP = 1000
TIMEOUT = 0.2
SECONDS = 10.0
"""Of the processor: what is quadratic would take minutes."""


class Turn(Struct):
    role: str
    content: str = ""


class Body(Struct):
    prompt: str
    n: int = 1
    temperature: float = 1.0
    messages: list[Turn] = []
    bias: dict[int, float] = {}


# body, the field at fault, what is said of it
WRONG = [
    (b'{"prompt": 7}', "prompt", "str"),
    (b'{"prompt": null}', "prompt", "str"),
    (b'{"prompt": ["a"]}', "prompt", "array"),
    (b'{"prompt": "a", "n": "7"}', "n", "int"),
    (b'{"prompt": "a", "n": 1.5}', "n", "int"),
    (b'{"prompt": "a", "n": true}', "n", "int"),
    (b'{"prompt": "a", "n": %b}' % (b"9" * 5000), "n", "range"),
    (b'{"prompt": "a", "temperature": 1e999}', "temperature", "range"),
    (b'{"prompt": "a", "temperature": -1e999}', "temperature", "range"),
    (b'{"prompt": "a", "messages": [{"role": "user"}, {"role": 1}]}', "messages[1].role", "str"),
    (b'{"prompt": "a", "messages": [{}]}', "messages[0].role", "required"),
    (b"{}", "prompt", "required"),
    (b"[]", None, "object"),
    (b"null", None, "object"),
    (b"", None, "JSON"),
    (b'{"prompt": "a"', None, "JSON"),
    (b'{"prompt": "a"} x', None, "JSON"),
    (b'{"prompt": "a", "temperature": NaN}', None, "JSON"),
    (b'{"prompt": "a", "temperature": Infinity}', None, "JSON"),
    (b'{"prompt": "\\ud800"}', None, "JSON"),
    (b'{"prompt": "\\udc00\\ud800"}', None, "JSON"),
    (b'{"prompt": "\xed\xa0\x80"}', None, "JSON"),
    (b'{"prompt": "\xff"}', None, "JSON"),
    (b'\xef\xbb\xbf{"prompt": "a"}', None, "JSON"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt", "twice"),
    (b'{"prompt": "a", "\\u0078": 1, "x": {}}', "x", "twice"),
    (b'{"prompt": "a", "messages": [{"role": "a", "role": "b"}]}', "messages", "'role' twice"),
    (b'{"prompt": "a", "b\\u0069as": {"7": 1, "7": 2}}', "bias", "'7' twice"),
    (b'[{"a": 1, "a": 2}]', None, "'a' twice"),
    (b'{"prompt": "a", "unknown": "\xed\xa0\x80"}', None, "JSON"),
    ('{"prompt": "a"}'.encode("utf-16"), None, "JSON"),
    (b"[" * 65 + b"]" * 65, None, "nested"),
    (b'{"prompt": "a", "x": ' + b'{"a":' * 65 + b"0" + b"}" * 66, None, "nested"),
]


@pytest.mark.parametrize(("body", "param", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_body_is_refused_by_the_name_of_its_field(body: bytes, param: str | None, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        guard.decode(body, Body)
    assert caught.value.param == param


def test_a_wrong_key_is_refused_by_the_name_of_its_field() -> None:
    with pytest.raises(BadRequest) as caught:
        guard.decode(b'{"prompt": "a", "bias": {"x": 1}}', Body)
    assert caught.value.param
    assert caught.value.param.startswith("bias")


def test_a_right_body_is_what_its_type_says() -> None:
    decoded = guard.decode('{"prompt": "\\ud83e\\uddf5 ä", "bias": {"7": 1}, "unknown": {}}'.encode(), Body)
    assert decoded == Body("🧵 ä", bias={7: 1.0})


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000_000,
        b'{"":' * 2_500_000,
        b'["' * 33 + b'\\"' * 2_000_000,
        b"[" * 65 + b'"' * 2_000_000,
        (b"[" * 64 + b"]" * 64 + b",") * 20_000,
    ],
    ids=["brackets", "objects", "escapes", "quotes", "towers"],
)
def test_a_hostile_body_is_answered_at_once(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest):
        guard.decode(body, Body)
    assert time.process_time() - began < SECONDS


class Read(Struct):
    """Remembers who reads it."""

    x: object = None
    thread: str = ""

    def __post_init__(self) -> None:
        self.thread = threading.current_thread().name


async def read(n_keys: int, n_told: list[int]) -> Read:
    """A body of so many keys; how often others on the event loop had a turn meanwhile."""
    body = b'{"x": [' + b",".join([b'{"k": 0}'] * n_keys) + b"]}"

    async def others() -> None:
        while True:
            n_told[0] += 1
            await asyncio.sleep(0)

    going_on = asyncio.create_task(others())
    await asyncio.sleep(0)
    try:
        return await guard.aside(guard.decode, body, Read)
    finally:
        going_on.cancel()


@pytest.mark.anyio
async def test_a_large_body_is_read_aside_while_others_have_their_turns() -> None:
    n_told = [0]
    assert (await read(50_000, n_told)).thread.startswith("large bodies")
    assert n_told[0] > 3


@pytest.mark.anyio
async def test_a_small_body_is_read_at_once() -> None:
    n_told = [0]
    assert (await read(10, n_told)).thread == threading.current_thread().name
    assert n_told[0] == 1


@pytest.mark.anyio
async def test_what_is_wrong_with_a_large_body_is_told_as_of_any() -> None:
    with pytest.raises(BadRequest, match="twice"):
        await guard.aside(guard.decode, b'{"x": "' + b"x" * guard.INLINE_BYTES + b'", "x": 1}', Read)


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


class Caught:
    """An app that keeps what its route raises."""

    def __init__(self) -> None:
        self.error: PlaitError | None = None
        self.app: ASGIApp = guard.BodyLimits(self.read, CAP, timeout=60)

    async def read(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await guard.body(Request(scope, receive)))(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except PlaitError as error:
            self.error = error
            await Response(status_code=error.status)(scope, receive, send)


async def post(content: bytes | AsyncIterator[bytes], **headers: str) -> PlaitError | None:
    app = Caught()
    said = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as http:
        await http.post("/", content=content, headers=said)
    return app.error


async def pieces(n: int, read: list[int]) -> AsyncIterator[bytes]:
    for i in range(n):
        read.append(i)
        yield b"x" * 100


@pytest.mark.anyio
async def test_a_body_up_to_the_cap_is_read() -> None:
    assert await post(b"x" * CAP) is None
    assert await post(pieces(10, [])) is None


@pytest.mark.anyio
async def test_a_long_body_that_says_so_is_refused_unread() -> None:
    read: list[int] = []
    assert isinstance(await post(pieces(11, read), content_length="1100"), BodyTooLarge)
    assert not read


@pytest.mark.anyio
async def test_a_long_body_that_does_not_say_so_is_refused_on_the_way() -> None:
    read: list[int] = []
    assert isinstance(await post(pieces(50, read)), BodyTooLarge)
    assert len(read) <= 12


@pytest.mark.anyio
@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]
)
async def test_json_has_several_names(media_type: str) -> None:
    assert await post(b'{"prompt": "a"}', content_type=media_type) is None


@pytest.mark.anyio
@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_does_not_say_that_it_is_json_is_refused(media_type: str) -> None:
    assert isinstance(await post(b"{}", content_type=media_type), UnsupportedMedia)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "is_read"),
    [
        ({}, True),
        ({"content-type": "text/plain"}, True),
        ({"origin": "http://a.example"}, False),
        ({"origin": "http://a.example", "content-type": "text/plain"}, False),
        ({"origin": "http://a.example", "content-type": "application/json"}, True),
    ],
)
async def test_a_body_that_need_not_say_what_it_is_must_where_a_browser_sends_it(
    headers: dict[str, str], is_read: bool
) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"prompt": "a"}'}

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "headers": pairs}, receive)
    with nullcontext() if is_read else pytest.raises(UnsupportedMedia):
        assert await guard.untyped_json(request, Body) == Body("a")


@pytest.mark.anyio
async def test_a_compressed_body_is_refused() -> None:
    assert isinstance(await post(b"{}", content_encoding="gzip"), UnsupportedMedia)


@pytest.mark.anyio
async def test_a_charset_does_no_harm() -> None:
    assert await post(b"{}", content_type="Application/JSON; charset=utf-8") is None


@pytest.mark.anyio
async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def never() -> Message:
        await anyio.sleep_forever()
        return {}

    async def unheard(message: Message) -> None: ...

    meter = guard.BodyLimits(Caught().read, CAP, TIMEOUT)
    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(SlowRequest):
        await meter(scope, never, unheard)
