"""A server with two LoRA adapters: each request has those that it asks for, whoever else is served."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import pytest

from tests.e2e.test_resume import kill_worker
from tests.e2e.test_serving import complete, text_of
from tests.native.adapters import write_adapter
from tests.native.models import write_llama
from tests.serving import Server, free_port, running
from tests.waiting import until

SETS: list[dict[str, object]] = [
    {},
    {"lora": []},
    {"lora": [{"id": 0, "scale": 1}]},
    {"lora": [{"id": 1, "scale": 1}]},
    {"lora": [{"id": 1, "scale": 0.25}, {"id": 0, "scale": 1}]},
]
PROMPT = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 200, "ignore_eos": True}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Reproducible, so that nothing but its adapters can make a difference to a text."""
    folder = tmp_path_factory.mktemp("adapted")
    write_llama(folder / "llama.gguf", can_end=False)
    for seed in (0, 1):
        write_adapter(folder / f"{seed}.gguf", seed=seed)
    lora = ["--lora", str(folder / "0.gguf"), "--lora", f"{folder / '1.gguf'}=0.25"]
    port = free_port()
    command = ["serve", "--model", str(folder / "llama.gguf"), *lora, "--reproducible", "--port", str(port)]
    settings = ["--threads", "1", "--slots", "4", "--log-level", "warning"]
    with running([*command, *settings], port, env={"PLAIT_PROBE_SECONDS": "600"}) as server:
        yield server


def ask(server: Server, adapters: dict[str, object]) -> str:
    return text_of(complete(server.url, **PROMPT, **adapters))


@pytest.fixture(scope="module")
def alone(adapted: Server) -> list[str]:
    return [ask(adapted, {**adapters, "cache_prompt": False}) for adapters in SETS]


def test_each_set_has_a_text_of_its_own_and_what_is_not_said_is_as_at_the_start(alone: list[str]) -> None:
    begun, *others = alone
    assert len(set(others)) == 4
    assert begun == others[-1]


def test_requests_with_other_adapters_get_the_texts_that_they_get_alone(adapted: Server, alone: list[str]) -> None:
    with ThreadPoolExecutor(10) as clients:
        for _ in range(2):
            assert list(clients.map(partial(ask, adapted), SETS * 2)) == alone * 2


def test_they_keep_them_when_the_engine_dies(adapted: Server, alone: list[str]) -> None:
    n_resumed = adapted.metric("plait_resumed_total")
    with ThreadPoolExecutor(5) as clients:
        texts = [clients.submit(ask, adapted, adapters) for adapters in SETS]
        until(lambda: adapted.metric("plait_slots_writing") > 0)
        kill_worker(adapted)
        assert [text.result() for text in texts] == alone
    assert adapted.metric("plait_resumed_total") > n_resumed


@pytest.mark.parametrize("stream", [False, True])
def test_an_adapter_that_is_not_there_is_a_400(adapted: Server, stream: bool) -> None:
    asked = {"prompt": "A", "lora": [{"id": 2, "scale": 1}], "stream": stream}
    answer = httpx2.post(f"{adapted.url}/v1/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "lora"
