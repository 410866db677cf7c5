"""One server, many clients: what the engine promises, seen from outside."""

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import llama_cpp.llama_cpp as native
import pytest

from plait.config import Engine as Settings
from plait.fleet.registry import resolve
from plait.llama.model import Model
from tests.serving import Server
from tests.waiting import until

TALE = "Once upon a time there was a little"


def complete(url: str, **fields: object) -> dict[str, object]:
    answer = httpx2.post(f"{url}/v1/completions", json=fields, timeout=60)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def text_of(body: dict[str, object]) -> str:
    choices = body["choices"]
    assert isinstance(choices, list)
    return str(choices[0]["text"])


@contextlib.contextmanager
def streaming(url: str, **fields: object) -> Iterator[Iterator[str]]:
    """The chunks of a streamed completion."""
    with httpx2.stream("POST", f"{url}/v1/completions", json=fields | {"stream": True}, timeout=60) as answer:
        assert answer.status_code == 200
        yield (line[6:] for line in answer.iter_lines() if line.startswith("data: "))


def plain_loop(path: str, prompt: str, n: int) -> str:
    """Greedy text from one sequence and nothing of ours but the tokenizer."""
    with Model(path, Settings(threads=1)) as model:
        params = native.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
        context = native.llama_init_from_model(model.handle, params)
        tokens, said = model.tokenize(prompt, add_special=True, parse_special=True), b""
        for _ in range(n):
            ids = (native.llama_token * len(tokens))(*tokens)
            assert native.llama_decode(context, native.llama_batch_get_one(ids, len(ids))) == 0
            logits = native.llama_get_logits_ith(context, -1)[: model.n_vocab]
            tokens = [max(range(model.n_vocab), key=logits.__getitem__)]
            said += model.pieces[tokens[0]]
        native.llama_free(context)
    return said.decode()


def test_greedy_text_is_that_of_a_plain_loop(server: Server) -> None:
    path = str(resolve("plait-demo").path)
    body = complete(server.url, prompt=TALE, max_tokens=60, temperature=0)
    said = text_of(body)
    assert plain_loop(path, TALE, 60).startswith(said)
    assert len(said) > 60


def test_32_streams_at_once_all_complete(server: Server) -> None:
    def words(i: int) -> list[str]:
        fields = {"prompt": f"{TALE} {i}", "max_tokens": 24, "seed": i, "ignore_eos": True}
        with streaming(server.url, **fields) as chunks:
            return list(chunks)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(words, range(32)))
    for chunks in answers:
        assert chunks[-1] == "[DONE]"
        assert json.loads(chunks[-2])["choices"][0]["finish_reason"] == "length"


def test_a_client_that_hangs_up_frees_its_slot_before_another_step(server: Server) -> None:
    until(lambda: server.metric("plait_slots_writing") == 0)
    n_cancelled = server.metric("plait_worker_cancelled_total")
    with streaming(server.url, prompt=TALE, max_tokens=1900, ignore_eos=True, n=16) as chunks:
        assert [next(chunks) for _ in range(20)]
    until(lambda: server.metric("plait_worker_cancelled_total") == n_cancelled + 1)
    assert server.metric("plait_cancel_steps_max") <= 1, "no more than the step that was under way"
    assert server.metric("plait_slots_writing") == server.metric("plait_slots_reading") == 0
    n_tokens = server.metric("plait_output_tokens_total")
    complete(server.url, prompt=TALE, max_tokens=1, ignore_eos=True)
    until(lambda: server.metric("plait_output_tokens_total") > n_tokens)
    assert server.metric("plait_output_tokens_total") == n_tokens + 1, "nobody else wrote"


def test_leaving_while_queued_leaves_no_trace(server: Server) -> None:
    long = {"prompt": TALE, "max_tokens": 1500, "ignore_eos": True, "n": 32}
    with contextlib.suppress(httpx2.ReadTimeout):
        httpx2.post(f"{server.url}/v1/completions", json=long, timeout=httpx2.Timeout(30, read=0.3))
    until(lambda: server.metric("plait_queue") == 0 and server.metric("plait_slots_writing") == 0)
    assert text_of(complete(server.url, prompt=TALE, max_tokens=4))


def test_a_request_whose_time_is_over_while_it_is_queued_is_not_computed(server: Server) -> None:
    late, hurry = {"prompt": "Who waits in vain has nothing read to him. " * 20}, {"x-request-timeout": "0.3"}
    with streaming(server.url, prompt=TALE, max_tokens=1900, ignore_eos=True, n=64):
        until(lambda: server.metric("plait_queue") > 0)
        answer = httpx2.post(f"{server.url}/v1/completions", json=late, headers=hurry, timeout=60)
        assert answer.status_code == 504
        assert server.metric("plait_queue") > 0, "it did not wait"
    known = complete(server.url, **late, max_tokens=1)["usage"]
    assert isinstance(known, dict)
    assert known["prompt_tokens_details"]["cached_tokens"] < 10, "what would be left of it, had it been read"


def test_what_an_answer_cost_is_known_when_it_has_ended(server: Server) -> None:
    """However short it was: this one begins and ends within one step."""
    for i in range(5):
        before = server.metric("plait_output_tokens_total")
        complete(server.url, prompt=f"{i} dogs", max_tokens=1)
        assert server.metric("plait_output_tokens_total") == before + 1


def cpu_seconds(pid: int) -> float:
    """What a process has had of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BAD: list[tuple[bytes, int]] = [
    (b'{"prompt": 7}', 400),
    (b'{"prompt": "x", "temperature": NaN}', 400),
    (b'{"prompt": "x", "temperature": 1e999}', 400),
    (b'{"prompt": "x", "max_tokens": true}', 400),
    (b'{"prompt": "\\ud800"}', 400),
    (b'{"prompt": "\xff"}', 400),
    (b'{"prompt": [99999999]}', 400),
    (b'{"prompt": "x", "logit_bias": {"99999999": 1}}', 400),
    (b'{"prompt": "x", "n": 1000000}', 400),
    (b'{"prompt": "x", "stop": ["' + b'", "'.join([b"a"] * 17) + b'"]}', 400),
    (b"[" * 1_000_000, 400),
    (b'{"prompt": "x", "model": "nobody"}', 404),
    (b'{"prompt": "' + b"x" * 5_000_000 + b'"}', 413),
    (b'{"prompt": "' + b"word " * 3000 + b'"}', 400),
]


@pytest.mark.parametrize(("body", "status"), BAD, ids=[body[:40].decode(errors="replace") for body, _ in BAD])
def test_bad_input_is_refused_at_once_and_the_worker_lives(server: Server, body: bytes, status: int) -> None:
    worker = server.get("/admin/models").json()[0]["replicas"][0]["pid"]
    before = text_of(complete(server.url, prompt=TALE, max_tokens=8, temperature=0, cache_prompt=False))
    began = cpu_seconds(server.process.pid) + cpu_seconds(worker)
    answer = httpx2.post(
        f"{server.url}/v1/completions", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert cpu_seconds(server.process.pid) + cpu_seconds(worker) - began < 1
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert server.get("/admin/models").json()[0]["replicas"][0]["pid"] == worker
    assert text_of(complete(server.url, prompt=TALE, max_tokens=8, temperature=0, cache_prompt=False)) == before


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(server: Server) -> None:
    answer = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "word " * 3000, "stream": True}, timeout=30)
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "2048" in error["message"]


def test_an_answer_ends_at_the_end_of_the_context(server: Server) -> None:
    prompt = [300 + i % 500 for i in range(2000)]
    body = complete(server.url, prompt=prompt, ignore_eos=True)
    assert body["usage"] == {
        "prompt_tokens": 2000,
        "completion_tokens": 48,
        "total_tokens": 2048,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "cached_from": {"running": 0, "idle": 0, "ram": 0, "disk": 0},
        },
    }
