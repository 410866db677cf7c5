"""A server's life: workers that die, models that come and go, keys, sockets, and the end."""

import shutil
import signal
from pathlib import Path

import httpx2
from openai import OpenAI

from plait.fleet.registry import DEMO, resolve
from tests.arenas import n_arenas, needs_glibc
from tests.e2e.test_serving import TALE, complete, streaming, text_of
from tests.serving import Server, serving
from tests.waiting import SECONDS, until

ONE_THREAD = ("--threads", "1")


def test_models_come_and_go_while_others_are_served(tmp_path: Path) -> None:
    path = shutil.copy(resolve(DEMO).path, tmp_path / "second.gguf")
    with serving(*ONE_THREAD) as server, streaming(server.url, prompt=TALE, ignore_eos=True) as chunks:
        next(chunks)
        loaded = httpx2.post(f"{server.url}/admin/models", json={"model": f"two={path}"}, timeout=60)
        assert loaded.status_code == 201
        assert complete(server.url, prompt=TALE, model="two", max_tokens=2)["model"] == "two"
        again = httpx2.post(f"{server.url}/admin/models", json={"model": f"two={path}"}, timeout=60)
        assert again.status_code == 409
        assert httpx2.delete(f"{server.url}/admin/models/two", timeout=60).status_code == 204
        gone = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "x", "model": "two"}, timeout=60)
        assert gone.status_code == 404
        assert list(chunks)[-1] == "[DONE]"


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    path = shutil.copy(resolve(DEMO).path, tmp_path / "second.gguf")
    with serving(*ONE_THREAD, "--memory-budget", "150MiB", "--slots", "2", "--ctx-size", "2048") as server:
        refused = httpx2.post(f"{server.url}/admin/models", json={"model": str(path)}, timeout=60)
        assert refused.status_code == 507
        assert "iB" in refused.json()["error"]["message"]
        assert text_of(complete(server.url, prompt=TALE, max_tokens=4))


def test_without_the_key_nothing_but_livez_answers() -> None:
    with serving(*ONE_THREAD, key="sesame") as server:
        assert server.get("/livez", key="").status_code == 200
        for path in ("/v1/models", "/metrics", "/readyz", "/admin/models", "/nowhere"):
            assert server.get(path, key="").status_code == server.get(path, key="sesam").status_code == 401
        with OpenAI(base_url=f"{server.url}/v1", api_key="sesame") as client:
            assert client.models.list().data[0].id == DEMO


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "plait.sock"
    with serving(*ONE_THREAD, unix_socket=path) as server:
        transport = httpx2.HTTPTransport(uds=str(path))
        with OpenAI(base_url="http://plait/v1", api_key="-", http_client=httpx2.Client(transport=transport)) as client:
            assert client.completions.create(model=DEMO, prompt=TALE, max_tokens=4).choices[0].text
        assert server.is_ready
    assert not path.exists()


def test_a_stream_that_runs_at_sigterm_is_finished() -> None:
    with serving(*ONE_THREAD) as server:
        with streaming(server.url, prompt=TALE, max_tokens=200, ignore_eos=True) as chunks:
            next(chunks)
            server.process.send_signal(signal.SIGTERM)
            assert list(chunks)[-1] == "[DONE]"
        assert server.process.wait(SECONDS) == 0


@needs_glibc
def test_the_gateway_s_threads_allocate_in_one_place(server: Server) -> None:
    assert complete(server.url, prompt="Once upon a time", max_tokens=4)
    assert n_arenas(server.process.pid) == 0


def test_two_replicas_share_the_work() -> None:
    with serving(*ONE_THREAD, "--replicas", "2") as server, OpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
        until(lambda: server.metric("plait_worker_up") == 2)
        for i in range(4):
            client.completions.create(model=DEMO, prompt=f"{i}", max_tokens=2)
        until(lambda: [server.metric("plait_worker_requests_total", replica=n) for n in "01"] == [2, 2])
