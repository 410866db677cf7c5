"""The whole server as a process: how it begins, how it ends, and what it lets through."""

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.fakes.gguf_file import write_gguf
from tests.waiting import SECONDS, until


@dataclass
class Running:
    """A server with fake workers."""

    process: subprocess.Popen[str]
    addresses: list[str]

    @property
    def url(self) -> str:
        return self.addresses[0]

    def ask(self, prompt: str) -> AbstractContextManager[httpx2.Response]:
        return httpx2.stream("POST", f"{self.url}/v1/completions", json={"prompt": prompt, "stream": True}, timeout=20)

    def status(self, path: str) -> int:
        return httpx2.get(self.url + path, timeout=20).status_code

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @contextmanager
    def start(waits: bool = True, **settings: object) -> Iterator[Running]:
        model = str(write_gguf(tmp_path / "tiny.gguf"))
        said = json.dumps({"model": [model], "port": 0, "slots": 2, "log_level": "error"} | settings)
        command = [sys.executable, "-m", "tests.fakes.server", said]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                line = process.stdout.readline() if waits else ""
                yield Running(process, json.loads(line)[0] if line else [])
            finally:
                process.kill()

    return start


def lines_of(response: httpx2.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line.startswith("data: "))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(start: Start, number: signal.Signals) -> None:
    with start() as server:
        assert server.status("/readyz") == 200
        server.end(number)
        assert server.process.wait(SECONDS) == 0


def test_a_draining_server_finishes_what_runs_and_takes_nothing_new(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with start() as server, server.ask(f"gate {gate}") as response:
        lines = lines_of(response)
        next(lines)
        server.end()
        until(lambda: server.status("/readyz") == 503)
        assert server.status("/livez") == 200
        refused = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "echo"}, timeout=20)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert int(refused.headers["retry-after"]) >= 1
        gate.touch()
        assert list(lines)[-1] == "data: [DONE]"
        assert server.process.wait(SECONDS) == 0


def test_who_does_not_finish_in_time_is_told_so(start: Start) -> None:
    with start(drain_timeout=0.2) as server, server.ask("hang") as response:
        lines = lines_of(response)
        next(lines)
        server.end()
        assert json.loads(list(lines)[-1].removeprefix("data: "))["error"]["code"] == "unavailable"
        assert server.process.wait(SECONDS) == 0


def test_a_second_signal_ends_the_waiting(start: Start) -> None:
    with start(drain_timeout=60) as server, server.ask("hang") as response:
        lines = lines_of(response)
        next(lines)
        server.end()
        until(lambda: server.status("/readyz") == 503)
        server.end()
        assert server.process.wait(SECONDS) == 0


def test_a_unix_socket_is_its_owners_and_is_gone_in_the_end(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "plait.sock"
    with start(listen=[f"unix://{path}", "tcp://127.0.0.1:0"]) as server:
        assert server.addresses[0] == f"unix://{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://plait", timeout=20) as http:
            assert http.get("/readyz").status_code == 200
        assert httpx2.get(f"{server.addresses[1]}/readyz", timeout=20).status_code == 200
        server.end()
        assert server.process.wait(SECONDS) == 0
    assert not path.exists()


def test_a_model_that_does_not_load_ends_the_server_with_an_error(start: Start, tmp_path: Path) -> None:
    with start(model=[str(write_gguf(tmp_path / "bad.gguf"))]) as server:
        assert server.process.wait(SECONDS) not in (0, -signal.SIGKILL)


def test_it_is_alive_but_not_ready_while_a_model_loads(start: Start, tmp_path: Path) -> None:
    address = tmp_path / "plait.sock"
    endless = str(write_gguf(tmp_path / "endless.gguf"))
    with start(waits=False, model=[endless], listen=[f"unix://{address}"]) as server:
        until(address.exists)
        transport = httpx2.HTTPTransport(uds=str(address))
        with httpx2.Client(transport=transport, base_url="http://plait", timeout=20) as http:
            assert http.get("/livez").status_code == 200
            until(lambda: "endless is loading" in http.get("/readyz").json()["reasons"][0])
            assert http.post("/v1/completions", json={"prompt": "echo"}).status_code == 503
        server.end()
        assert server.process.wait(SECONDS) == 0


def test_it_is_not_ready_while_a_dialect_prepares(start: Start, tmp_path: Path) -> None:
    gate, address = tmp_path / "gate", tmp_path / "plait.sock"
    with start(waits=False, prepares=f"gate {gate}", listen=[f"unix://{address}"]) as server:
        until(address.exists)
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(address)), base_url="http://plait", timeout=20
        ) as http:
            until(lambda: http.get("/admin/models").json()[0]["state"] == "ready")
            assert http.get("/readyz").json()["reasons"] == ["the server is starting"]
            gate.touch()
            until(lambda: http.get("/readyz").status_code == 200)
        server.end()
        assert server.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"stream": True}),
        ("/v1/chat/completions", {"stream": True}),
        ("/srb/v1/completions", {"stream": True, "n": 1}),
    ],
)
def test_a_stream_that_goes_on_with_the_next_worker_is_kept_awake(
    start: Start, path: str, fields: dict[str, object]
) -> None:
    what = {"messages": [{"role": "user", "content": "dumb"}]} if "chat" in path else {"prompt": "dumb"}
    with start() as server, httpx2.stream("POST", server.url + path, json=what | fields, timeout=20) as response:
        assert ": resuming" in response.iter_lines()
        assert response.status_code == 200


def test_a_stream_that_cannot_go_on_ends_with_one_error_that_says_why(start: Start) -> None:
    with start() as server, server.ask("crash") as response:
        *said, last = [json.loads(line.removeprefix("data: ")) for line in lines_of(response)]
        assert response.status_code == 200
    assert "".join(each["choices"][0]["text"] for each in said) == "so "
    assert last["error"]["code"] == "engine_crash"


def files(process: subprocess.Popen[str]) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def seconds_computed(process: subprocess.Popen[str]) -> float:
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_k7_a_crowd_for_which_there_are_no_files_hurts_nobody_else_and_costs_nothing(
    start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with start() as server, server.ask(f"gate {gate}") as response, ExitStack() as crowd:
        lines, address = lines_of(response), urlsplit(server.url)
        next(lines)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        for _ in range(500):
            crowd.enter_context(socket.create_connection((address.hostname, address.port), timeout=SECONDS))
        until(lambda: files(server.process) >= 60)
        before, now = seconds_computed(server.process), time.monotonic()
        until(lambda: time.monotonic() > now + 2)
        assert seconds_computed(server.process) - before < (time.monotonic() - now) / 2
        gate.touch()
        assert list(lines)[-1] == "data: [DONE]"
        crowd.close()
        until(lambda: server.status("/readyz") == 200)


def test_k8_a_wall_clock_that_leaps_by_hours_ends_nothing(start: Start) -> None:
    with start(leaps=True, deadline=SECONDS) as server, httpx2.Client(base_url=server.url, timeout=SECONDS) as http:
        before = http.get("/admin/models").json()[0]["replicas"][0]["pid"]
        for _ in range(10):
            answer = http.post("/v1/completions", json={"prompt": "count", "max_tokens": 50})
            assert (answer.status_code, http.get("/readyz").status_code) == (200, 200)
        replica = http.get("/admin/models").json()[0]["replicas"][0]
        assert (replica["pid"], replica["n_restarts"]) == (before, 0)


def test_the_gateway_gives_way_to_its_workers(start: Start) -> None:
    with start() as server:
        pid = server.process.pid
        worker = httpx2.get(f"{server.url}/admin/models", timeout=20).json()[0]["replicas"][0]["pid"]
        assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, worker)
        server.end()
        assert server.process.wait(SECONDS) == 0


def test_a_gateway_that_is_killed_takes_its_workers_along(start: Start) -> None:
    with start() as server:
        worker = httpx2.get(f"{server.url}/admin/models", timeout=20).json()[0]["replicas"][0]["pid"]
        server.process.kill()
        server.process.wait(SECONDS)
        until(lambda: not is_alive(worker))


def is_alive(pid: int) -> bool:
    """A dead process that nobody has buried yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
