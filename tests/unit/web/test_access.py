"""Who gets in."""

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from plait.errors import Forbidden, Unauthorized
from plait.web.access import AdminCheck, HostCheck, KeyCheck, host_name, is_loopback

KEYS = ["first", "sécond", "voilà"]


async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


async def unasked() -> Message:
    raise AssertionError("the body was read")


async def unheard(message: Message) -> None: ...


def check(**headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    KeyCheck(nothing, KEYS, ()).tenant(Headers(named))


@pytest.mark.parametrize("header", ["Bearer first", "bearer first", "Bearer  first "])
def test_a_known_bearer_gets_in(header: str) -> None:
    check(authorization=header)


def test_a_known_key_gets_in_by_its_other_header() -> None:
    check(x_api_key="first")


@pytest.mark.parametrize("key", ["sécond", "voilà"])
@pytest.mark.parametrize(("name", "scheme"), [(b"authorization", b"Bearer "), (b"x-api-key", b"")])
def test_a_key_may_have_any_letters_and_is_sent_as_utf_8(key: str, name: bytes, scheme: bytes) -> None:
    KeyCheck(nothing, KEYS, ()).tenant(Headers(raw=[(name, scheme + key.encode())]))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer firs", "Bearer firstt", "Basic first", "first"])
def test_nobody_else_does(header: str) -> None:
    with pytest.raises(Unauthorized):
        check(authorization=header)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/livez/", "//livez", "/LIVEZ", "/livez?x", "/v1/models", "/", ""])
async def test_every_path_but_the_open_ones_is_closed(path: str) -> None:
    gate = KeyCheck(nothing, KEYS, {"/livez"})
    await gate({"type": "http", "path": "/livez", "headers": []}, unasked, unheard)
    with pytest.raises(Unauthorized):
        await gate({"type": "http", "path": path, "headers": []}, unasked, unheard)


async def ask_admin(**headers: str) -> None:
    gate = AdminCheck(nothing, ["root"], lambda scope: scope["path"] == "/admin")
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await gate({"type": "http", "path": "/other", "headers": named}, unasked, unheard)
    await gate({"type": "http", "path": "/admin", "headers": named}, unasked, unheard)


@pytest.mark.anyio
async def test_an_admin_gets_in() -> None:
    await ask_admin(authorization="Bearer root")
    await ask_admin(x_api_key="root")


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["first", "roo", "roott", "ROOT"])
async def test_another_key_is_no_admins(key: str) -> None:
    with pytest.raises(Forbidden):
        await ask_admin(x_api_key=key)


@pytest.mark.anyio
async def test_without_a_key_nobody_is_an_admin() -> None:
    with pytest.raises(Unauthorized):
        await ask_admin()


async def knock(host: str, client: tuple[str, int] | None = ("127.0.0.1", 5)) -> None:
    scope = {"type": "http", "client": client, "headers": [(b"host", host.encode())]}
    await HostCheck(nothing)(scope, unasked, unheard)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080", "[::1]"])
async def test_a_loopback_host_gets_in(host: str) -> None:
    await knock(host)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "localhost/v1?", "0.0.0.0", "", "[::1."]
)
async def test_another_host_does_not(host: str) -> None:
    with pytest.raises(Forbidden):
        await knock(host)


@pytest.mark.anyio
async def test_through_a_unix_socket_every_host_gets_in() -> None:
    await knock("evil.example", client=None)


def test_a_host_loses_its_port_only() -> None:
    assert [host_name(host) for host in ("a:1", "a", "[::1]:8", "[::1]")] == ["a", "a", "::1", "::1"]
    assert not is_loopback("")
