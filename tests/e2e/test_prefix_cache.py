"""What was computed once is not computed again: after a restart, after kill -9, and for nobody who may not have it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.e2e.test_serving import complete, text_of
from tests.native.models import write_gemma, write_mamba
from tests.serving import Server, serving
from tests.waiting import until

STORY = "Once upon a time there was a little dog who wanted to see the sea. " * 30


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return ["--cache-dir", str(tmp_path / "cache")]


layouts = pytest.mark.parametrize("layout", ["split", "unified"])


def sources(body: dict[str, object]) -> dict[str, int]:
    usage = body["usage"]
    assert isinstance(usage, dict)
    found: dict[str, int] = usage["prompt_tokens_details"]["cached_from"]
    return found


def n_prompt(body: dict[str, object]) -> int:
    usage = body["usage"]
    assert isinstance(usage, dict)
    return int(usage["prompt_tokens"])


def ask(server: Server, prompt: str = STORY) -> dict[str, object]:
    return complete(server.url, prompt=prompt, temperature=0, max_tokens=8)


def is_on_disk(server: Server) -> bool:
    """Whether all that is in RAM has been written; a worker that ends has no more than a few seconds for that."""
    return server.metric("plait_cache_disk_bytes") >= server.metric("plait_cache_ram_bytes") > 0


@layouts
def test_a_restarted_server_knows_the_prompts_of_the_one_before(flags: list[str], layout: str) -> None:
    flags += ["--kv-layout", layout]
    with serving(*flags) as server:
        first = ask(server)
        until(lambda: is_on_disk(server))
    with serving(*flags) as server:
        again = ask(server)
        assert sources(again) == {"running": 0, "idle": 0, "ram": 0, "disk": n_prompt(first) - 1}
        assert text_of(again) == text_of(first)
        assert server.metric("plait_prompt_tokens_total") == 1


def test_so_does_one_whose_worker_was_killed(flags: list[str]) -> None:
    with serving(*flags) as server:
        first = ask(server)
        until(lambda: server.metric("plait_cache_disk_bytes") > 0)
        pid = server.get("/admin/models").json()[0]["replicas"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.get("/admin/models").json()[0]["replicas"][0]["pid"] not in (pid, None))
        until(lambda: server.is_ready)
        assert sources(ask(server))["disk"] == n_prompt(first) - 1


@layouts
def test_what_a_slot_was_needed_for_comes_back_from_ram(flags: list[str], layout: str) -> None:
    with serving(*flags, "--kv-layout", layout, "--slots", "1") as server:
        first = ask(server)
        ask(server, "The cat sat on the mat and looked at the moon. " * 20)
        again = ask(server)
        assert sources(again) == {"running": 0, "idle": 0, "ram": n_prompt(first) - 1, "disk": 0}
        assert text_of(again) == text_of(first)
        assert server.metric("plait_cache_buffer_bytes") > 0


def test_an_emptied_cache_is_empty(flags: list[str]) -> None:
    with serving(*flags) as server:
        ask(server)
        until(lambda: server.metric("plait_cache_disk_bytes") > 0)
        assert httpx2.delete(server.url + "/admin/cache", timeout=60).status_code == 204
        until(lambda: server.metric("plait_cache_disk_bytes") == server.metric("plait_cache_ram_bytes") == 0)
        assert sum(sources(ask(server)).values()) == 0


def test_other_keys_prompts_are_not_known(tmp_path: Path) -> None:
    flags = ["--cache-dir", str(tmp_path / "cache"), "--api-key", "one", "--api-key", "two"]
    with serving(*flags, key="one") as server:
        first = [cached(server, key) for key in ("one", "two", "one", "two")]
    assert first[:2] == [0, 0]
    assert min(first[2:]) > 100
    with serving(*flags, "--cache-shared", "--cache-dir", str(tmp_path / "other"), key="one") as server:
        assert [cached(server, key) > 100 for key in ("one", "two")] == [False, True]


def cached(server: Server, key: str) -> int:
    body = {"prompt": STORY, "max_tokens": 1}
    answer = httpx2.post(f"{server.url}/v1/completions", json=body, headers={"x-api-key": key}, timeout=60)
    return sum(sources(answer.json()).values())


def test_who_wants_no_cache_leaves_nothing_and_takes_nothing(flags: list[str]) -> None:
    with serving(*flags) as server:
        for _ in range(2):
            body = complete(server.url, prompt=STORY, max_tokens=1, cache_prompt=False)
            assert sum(sources(body).values()) == 0
        assert sum(sources(ask(server)).values()) == 0


def chat(server: Server, *turns: str) -> dict[str, int]:
    """Where the prompt of a chat was found."""
    roles = ("user", "assistant") * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0}
    answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return sources(answer.json())


@pytest.mark.parametrize("write_model", [write_mamba, write_gemma])
def test_a_state_that_cannot_be_cut_is_kept_at_its_prompts_end(
    flags: list[str], tmp_path: Path, write_model: Callable[[Path], None]
) -> None:
    """Of a recurrent model, and of one with a sliding window."""
    write_model(tmp_path / "model.gguf")
    flags += ["-m", str(tmp_path / "model.gguf"), "--slots", "1"]
    with serving(*flags) as server:
        assert server.get("/admin/models").json()[0]["info"]["prefix_cache"] == "snapshots"
        first = complete(server.url, prompt=STORY[:200], max_tokens=4, temperature=0)
        chat(server, "hello there, how are you today?")
        again = complete(server.url, prompt=STORY[:200], max_tokens=4, temperature=0)
        assert sources(again)["ram"] == n_prompt(first) - 1
        assert text_of(again) == text_of(first)
        complete(server.url, prompt="something else", max_tokens=4)
        assert chat(server, "hello there, how are you today?", "fine", "and tomorrow?")["ram"] > 16
        until(lambda: is_on_disk(server))
    with serving(*flags) as server:
        again = complete(server.url, prompt=STORY[:200], max_tokens=4, temperature=0)
        assert sources(again)["disk"] == n_prompt(first) - 1
        assert text_of(again) == text_of(first)
