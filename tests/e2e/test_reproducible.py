"""The same request, the same text: alone, among others, from the cache, and when the engine is killed meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest
from msgspec import structs

from plait.fleet import probes
from tests.e2e.test_resume import killed_meanwhile
from tests.serving import Server, free_port, running
from tests.waiting import until

SERVE = ["serve", "--log-level", "warning", "--threads", "1", "--slots", "4"]
N_REQUESTS = 12


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def steady(home: Path) -> Iterator[Server]:
    port = free_port()
    env = {"XDG_CACHE_HOME": str(home), "PLAIT_PROBE_SECONDS": "600"}
    with running([*SERVE, "--reproducible", "--port", str(port)], port, env=env) as server:
        yield server


def ask(server: Server, i: int, **more: object) -> list[str]:
    """The texts of a request; several have a common beginning."""
    prompt = "Once upon a time there was a cat. " * (1 + i % 4 * 6) + str(i)
    body = {"prompt": prompt, "seed": i, "temperature": i % 2, "max_tokens": 80, "ignore_eos": True, **more}
    answer = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return [choice["text"] for choice in answer.json()["choices"]]


def all_at_once(server: Server) -> list[list[str]]:
    with ThreadPoolExecutor(N_REQUESTS) as clients:
        return list(clients.map(partial(ask, server), range(N_REQUESTS)))


def ask_deep(server: Server, i: int, **more: object) -> str:
    """The text behind 610 tokens: so far from the beginning, attention to a single row is computed in parts."""
    prompt = [300 + (i + 7 * k) % 500 for k in range(610)]
    body = {"prompt": prompt, "seed": i, "temperature": 1, "max_tokens": 24, "ignore_eos": True, **more}
    answer = httpx2.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


@pytest.fixture(scope="module")
def alone(steady: Server) -> list[list[str]]:
    return [ask(steady, i, cache_prompt=False) for i in range(N_REQUESTS)]


def test_a_model_says_that_it_is_reproducible(steady: Server) -> None:
    found = steady.get("/v1/models").json()["data"][0]["reproducible"]
    assert found["value"].startswith("under load")


def test_load_and_cache_make_no_difference(steady: Server, alone: list[list[str]]) -> None:
    assert len({text for (text,) in alone}) > N_REQUESTS // 2
    assert all_at_once(steady) == all_at_once(steady) == alone


def test_nor_does_the_engine_s_death(steady: Server, alone: list[list[str]]) -> None:
    n_resumed = steady.metric("plait_resumed_total")
    # Now and then all is said before the engine is killed.
    while steady.metric("plait_resumed_total") == n_resumed:
        until(lambda: steady.is_ready)
        assert killed_meanwhile(steady, partial(all_at_once, steady)) == alone


def test_nor_do_threads_far_from_the_beginning(home: Path) -> None:
    port = free_port()
    command = ["serve", "--log-level", "warning", "--threads", "2", "--slots", "2", "-c", "1024", "--port", str(port)]
    with running([*command, "--reproducible"], port, env={"XDG_CACHE_HOME": str(home)}) as server:
        expected = [ask_deep(server, i, cache_prompt=False) for i in range(2)]
        assert len(set(expected)) == 2

        def together() -> list[str]:
            with ThreadPoolExecutor(2) as clients:
                return list(clients.map(partial(ask_deep, server), range(2)))

        assert together() == expected
        while not server.metric("plait_resumed_total"):
            until(lambda: server.is_ready)
            assert killed_meanwhile(server, together) == expected


def test_a_choice_is_the_text_of_its_seed_alone(steady: Server) -> None:
    assert ask(steady, 5, n=6, seed=5) == [ask(steady, 5, seed=5 + i)[0] for i in range(6)]


def test_what_was_found_out_is_kept(steady: Server, home: Path) -> None:
    (kept,) = (home / "plait" / "probes").iterdir()
    before = kept.stat().st_mtime_ns
    port = free_port()
    env = {"XDG_CACHE_HOME": str(home), "PLAIT_PROBE_SECONDS": "0"}
    with running([*SERVE, "--port", str(port)], port, env=env) as second:
        assert ask(second, 3, reproducible=True) == ask(steady, 3)
    assert kept.stat().st_mtime_ns == before


def test_what_one_start_had_no_time_for_the_next_one_measures(steady: Server, home: Path, tmp_path: Path) -> None:
    (kept,) = (home / "plait" / "probes").iterdir()
    known, folder = probes.load(kept.stem, kept.parent), tmp_path / "plait" / "probes"
    for probed in known:
        half = structs.replace(probed.facts, n_steps=2, blocks_beside=False, replay_chunk=1, cut_short="too slow")
        probes.save(structs.replace(probed, facts=half), folder)
    port = free_port()
    env = {"XDG_CACHE_HOME": str(tmp_path), "PLAIT_PROBE_SECONDS": "600"}
    with running([*SERVE, "--port", str(port)], port, env=env) as server:
        assert ask(server, 3, reproducible=True) == ask(steady, 3)
    facts = probes.load(kept.stem, folder)[0].facts
    assert (facts.n_steps, facts.blocks_beside) == (5, False)
    assert facts.replay_chunk > 1


def test_a_model_that_was_not_probed_refuses(server_url: str) -> None:
    answer = httpx2.post(f"{server_url}/v1/completions", json={"prompt": "A", "reproducible": True}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "reproducible"
    assert "not all was measured" in answer.json()["error"]["message"]
