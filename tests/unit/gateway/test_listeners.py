"""Where the server listens."""

import socket
import stat
from pathlib import Path

import pytest

from plait.config import ConfigError, Server
from plait.gateway.listeners import address, is_private, listening


def test_port_0_becomes_a_real_one() -> None:
    with listening(Server(port=0)) as [listener]:
        host, port = listener.getsockname()
        assert address(listener) == f"http://{host}:{port}"
        assert port > 0


def test_several_places_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(Server(listen=("tcp://127.0.0.1:0", f"unix://{path}", "tcp://[::1]:0"))) as listeners:
        addresses = [address(listener) for listener in listeners]
        assert addresses[1] == f"unix://{path}"
        assert addresses[2].startswith("http://[::1]:")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_two_colons_are_every_address() -> None:
    with listening(Server(host="::", port=0)) as [listener]:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with listening(Server(listen=(f"unix://{path}",))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_that_is_in_use_is_not(tmp_path: Path) -> None:
    server = Server(listen=(f"unix://{tmp_path / 's'}",))
    with listening(server), pytest.raises(ConfigError, match="in use"), listening(server):
        raise AssertionError("two listen there")


def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="in use"), listening(Server(listen=(f"unix://{path}",))):
        raise AssertionError("it listens")
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "place",
    ["8080", "http://127.0.0.1:80", "tcp://127.0.0.1", "tcp://:80", "tcp://h:99999", "unix://", "tcp://[::1:80"],
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="--listen"), listening(Server(listen=(place,))):
        raise AssertionError("it listens")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Server(), True),
        (Server(host="::1"), True),
        (Server(host="0.0.0.0"), False),
        (Server(host="::"), False),
        (Server(listen=("unix:///run/plait",)), True),
        (Server(listen=("unix:///run/plait", "tcp://10.0.0.1:80")), False),
    ],
)
def test_a_server_is_private_when_only_this_machine_reaches_it(server: Server, expected: bool) -> None:
    assert is_private(server) is expected
