"""Who may ask: ASGI middleware that lets a request through or raises, before any of its body is read.

Decides on the path as the server parsed it, never on one put together with the Host header. Whatever is not named
open is closed.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from plait.errors import Forbidden, Unauthorized

TENANT = "tenant"
"""Where an ASGI scope says whose request it is: some letters that stand for the API key, and do not tell it."""


class KeyCheck:
    """Lets through who carries one of the API keys, as `Authorization: Bearer` or `X-Api-Key`, and says who that is."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], open_paths: Collection[str]) -> None:
        self.app = app
        self.open_paths = open_paths
        self.digests = digests(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.open_paths:
            scope[TENANT] = self.tenant(Headers(scope=scope))
        await self.app(scope, receive, send)

    def tenant(self, headers: Headers) -> str:
        """Raises `Unauthorized` unless the key is known; takes the same time for all wrong ones."""
        key = _key(headers)
        if not key:
            raise Unauthorized("an API key is required: Authorization: Bearer KEY")
        if not _is_among(key, self.digests):
            raise Unauthorized("the API key is not known here")
        return _digest(key).hex()[:12]


class AdminCheck:
    """Lets nobody but the holder of an admin key through to what is for admins. Who has another key is told so."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], is_for_admins: Callable[[Scope], bool]) -> None:
        self.app = app
        self.digests = digests(keys)
        self.is_for_admins = is_for_admins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.is_for_admins(scope):
            key = _key(Headers(scope=scope))
            if not key:
                raise Unauthorized("an admin key is required: Authorization: Bearer KEY")
            if not _is_among(key, self.digests):
                raise Forbidden("only an admin key loads and stops models, and shows what serves them")
        await self.app(scope, receive, send)


def digests(keys: Iterable[str]) -> list[bytes]:
    """Of keys as a command line or a file spells them, whose bytes a client sends."""
    return [_digest(key.encode("utf-8", "surrogateescape")) for key in keys]


def _is_among(key: bytes, digests: Iterable[bytes]) -> bool:
    """Takes the same time for all wrong keys."""
    digest = _digest(key)
    return bool(sum(hmac.compare_digest(digest, known) for known in digests))


def _key(headers: Headers) -> bytes:
    """As it was sent."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    key = credentials.strip(" ") if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class HostCheck:
    """Lets through who calls this server by a loopback name.

    A page on the Web can have its own name resolve to 127.0.0.1 and so make a browser ask us, but not under our name.
    No page reaches a Unix socket, whose clients have no address: there any name will do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            host = Headers(scope=scope).get("host", "localhost")
            if not is_loopback(host_name(host)):
                raise Forbidden("this server listens to its own machine only, and not under that Host")
        await self.app(scope, receive, send)


def host_name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(name: str) -> bool:
    """Whether a name or an address can only mean this machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
