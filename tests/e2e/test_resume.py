"""kill -9 of the real engine in the middle of answers: a pause, and then the text that would have come anyway."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple, TypeVar

import httpx2
import pytest

from plait.protocol import MAX_STOP_BYTES
from tests.e2e.test_serving import TALE, streaming
from tests.process.test_server import is_alive
from tests.serving import STARTS_WITHIN, Server, free_port, serving
from tests.waiting import until

Told = TypeVar("Told")
LONG = {"max_tokens": 300, "ignore_eos": True}
WAYS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 1.0, "seed": 5},
    "penalized": {"temperature": 0.9, "seed": 6, "repeat_penalty": 1.3, "frequency_penalty": 0.4, "top_k": 0},
    "biased": {"temperature": 0, "logit_bias": {"300": 2.5}},
}


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server whose workers may be killed."""
    with serving("--threads", "1") as server:
        yield server


def worker(server: Server) -> int | None:
    pid: int | None = server.get("/admin/models").json()[0]["replicas"][0]["pid"]
    return pid


def kill_worker(server: Server) -> int:
    """Whom it was."""
    pid = worker(server)
    assert pid
    os.kill(pid, signal.SIGKILL)
    return pid


class Story(NamedTuple):
    """A streamed answer."""

    texts: list[str]
    """Of its chunks."""
    reason: str
    usage: dict[str, object]
    """What it came to, but for what was cached."""

    @property
    def text(self) -> str:
        return "".join(self.texts)


def story(server: Server, fields: dict[str, object]) -> Story:
    return hear(server, fields, kill_after=None)


def hear(server: Server, fields: dict[str, object], kill_after: int | None) -> Story:
    """The worker is killed after so many chunks."""
    texts, reasons = [], []
    with streaming(server.url, prompt=TALE, stream_options={"include_usage": True}, **LONG, **fields) as chunks:
        *said, end, done = watched(server, chunks, kill_after)
    assert done == "[DONE]"
    for choice in (json.loads(chunk)["choices"][0] for chunk in said):
        texts.append(choice["text"])
        reasons.append(choice["finish_reason"] or "")
    usage = json.loads(end)["usage"]
    return Story(texts, "".join(reasons), {name: usage[name] for name in ("prompt_tokens", "completion_tokens")})


def watched(server: Server, chunks: Iterator[str], kill_after: int | None) -> Iterator[str]:
    for n, chunk in enumerate(chunks):
        if n == kill_after:
            kill_worker(server)
        yield chunk


def cut_story(server: Server, fields: dict[str, object], at: int) -> Story:
    """The answer in which a worker was killed after so many chunks. Now and then it is complete before that."""
    n_resumed = server.metric("plait_resumed_total")
    while True:
        until(lambda: server.is_ready)
        heard = hear(server, fields, kill_after=at)
        if server.metric("plait_resumed_total") > n_resumed:
            return heard


@pytest.mark.parametrize("way", WAYS)
def test_the_text_is_that_of_an_engine_that_did_not_die(mortal: Server, way: str) -> None:
    expected, cut = story(mortal, WAYS[way]), cut_story(mortal, WAYS[way], at=40)
    assert (cut.text, cut.reason, cut.usage) == (expected.text, expected.reason, expected.usage)


def test_a_stop_string_may_begin_before_the_kill_and_end_behind_it(mortal: Server) -> None:
    told = story(mortal, WAYS["seeded"])
    # So long that the kill is in the middle of it: nobody hears of a stop string while it comes.
    ways = WAYS["seeded"] | {"stop": ["".join(told.texts[10:])[:MAX_STOP_BYTES]]}
    expected, cut = story(mortal, ways), cut_story(mortal, ways, at=9)
    assert expected.text == "".join(told.texts[:10])
    assert expected.reason == "stop"
    assert (cut.text, cut.reason, cut.usage) == (expected.text, expected.reason, expected.usage)


def killed_meanwhile(server: Server, ask: Callable[[], Told]) -> Told:
    """What is told when the worker is killed once it writes, or when all was told before."""
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask)
        until(lambda: answer.done() or server.metric("plait_slots_writing") > 0)
        kill_worker(server)
        return answer.result()


def test_a_whole_answer_outlives_its_engine(mortal: Server) -> None:
    def whole() -> httpx2.Response:
        body = {"prompt": TALE, "n": 3, "temperature": 0.9, "seed": 3, "max_tokens": 400, "ignore_eos": True}
        return httpx2.post(f"{mortal.url}/v1/completions", json=body, timeout=60)

    expected = whole().json()
    n_resumed = mortal.metric("plait_resumed_total")
    # Now and then an answer is complete before its engine is killed.
    while mortal.metric("plait_resumed_total") == n_resumed:
        until(lambda: mortal.is_ready)
        got = killed_meanwhile(mortal, whole).json()
        assert got["choices"] == expected["choices"]
        assert got["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"] == 1200


def test_k5_a_stopped_worker_does_not_outlive_its_gateway() -> None:
    port = free_port()
    command = [sys.executable, "-m", "plait", "serve", "--port", str(port), "--threads", "1", "--log-level", "warning"]
    with subprocess.Popen([*command, "--probe-seconds", "0"], stdout=subprocess.DEVNULL) as process:
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            until(lambda: server.answers("/readyz"), STARTS_WITHIN)
            stopped = worker(server)
            assert stopped
            os.kill(stopped, signal.SIGSTOP)
        finally:
            process.kill()
    until(lambda: not is_alive(stopped))


def test_all_streams_under_load_outlive_two_engines(mortal: Server) -> None:
    def listen(i: int) -> list[str]:
        with streaming(mortal.url, prompt=f"{TALE} {i}", max_tokens=300, ignore_eos=True, seed=i) as chunks:
            return list(chunks)

    def keep_listening(i: int) -> list[list[str]]:
        heard = [listen(i)]
        while not is_enough.is_set():
            heard.append(listen(i))
        return heard

    n_resumed, killed, is_enough = mortal.metric("plait_resumed_total"), set[int](), Event()
    with ThreadPoolExecutor(12) as pool:
        listening = [pool.submit(keep_listening, i) for i in range(12)]
        try:
            for _ in range(2):
                until(lambda: mortal.is_ready and mortal.metric("plait_slots_writing") > 4)
                killed.add(kill_worker(mortal))
                until(lambda: worker(mortal) not in {None, *killed})
        finally:
            is_enough.set()
    for heard in (each for listener in listening for each in listener.result()):
        *chunks, last, done = heard
        assert done == "[DONE]"
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert not any("error" in chunk for chunk in chunks)
    assert mortal.metric("plait_resumed_total") > n_resumed
