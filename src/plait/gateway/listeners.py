"""The sockets that a server listens on: TCP addresses and paths of Unix sockets, as the settings say them."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from plait.config import ConfigError, Server
from plait.web.access import is_loopback

BACKLOG = 2048
OWNER_ONLY = 0o177
"""The umask under which a Unix socket is made: who may connect may use the models."""


def spellings(server: Server) -> tuple[str, ...]:
    """Where to listen, as URLs."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return server.listen or (f"tcp://{host}:{server.port}",)


def is_private(server: Server) -> bool:
    """Whether only this machine can connect."""
    urls = map(_parse, spellings(server))
    return all(url.scheme == "unix" or is_loopback(url.hostname or "") for url in urls)


@contextmanager
def listening(server: Server) -> Iterator[list[socket.socket]]:
    """Open sockets for the time of the block. Raises `ConfigError` for what cannot be listened on."""
    with ExitStack() as stack:
        yield [stack.enter_context(_listen(spelling)) for spelling in spellings(server)]


def address(listener: socket.socket) -> str:
    """What a client says to connect there."""
    if listener.family == socket.AF_UNIX:
        return f"unix://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _parse(spelling: str) -> SplitResult:
    try:
        url = urlsplit(spelling)
        is_complete = bool(url.path) if url.scheme == "unix" else bool(url.hostname) and url.port is not None
    except ValueError as error:
        raise ConfigError(f"--listen {spelling}: {error}") from error
    if url.scheme not in ("unix", "tcp") or not is_complete:
        raise ConfigError(f"--listen {spelling}: say unix:///path or tcp://host:port")
    return url


@contextmanager
def _listen(spelling: str) -> Iterator[socket.socket]:
    url = _parse(spelling)
    try:
        listener = _unix(Path(url.path)) if url.scheme == "unix" else _tcp(url.hostname or "", url.port or 0)
    except OSError as error:
        raise ConfigError(f"cannot listen on {spelling}: {error.strerror or error}") from error
    with listener:
        yield listener
    if url.scheme == "unix":
        Path(url.path).unlink(missing_ok=True)


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # As everywhere else, "::" is every address of this machine, and not only those of IPv6.
    is_any = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_any)


def _unix(path: Path) -> socket.socket:
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    umask = os.umask(OWNER_ONLY)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    listener.listen(BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    """Whether somebody listens there still, or the socket was left behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
