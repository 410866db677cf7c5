"""The rows of the check table of the BitNet server, each against `plait as bitnet` with the demo model."""

import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Event
from typing import Any

import click
import httpx2
import pytest

from plait.cli.launchers.bitnet_http import command
from tests.dialects.bitnet.conftest import N_INSTANCES
from tests.serving import Server
from tests.waiting import SECONDS, until

DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful, harmless, and honest AI assistant. Answer the user's questions truthfully and helpfully."
)
SHAPE = re.compile(rb'\{"generated_text":"(?:[^"\\]|\\.)*","tokens_generated":(\d+),"tokens_processed":(\d+)\}')


def post(server: Server, **said: object) -> httpx2.Response:
    return httpx2.post(f"{server.url}/generate", json={"prompt": "What do owls eat?"} | said, timeout=60)


def generate(server: Server, **said: object) -> Any:
    response = post(server, **said)
    assert response.status_code == 200, response.text
    return response.json()


def option(name: str) -> click.Option:
    (found,) = (param for param in command.params if param.name == name)
    assert isinstance(found, click.Option)
    return found


def test_4_1_generate_with_a_prompt_only_gives_generated_text(server: Server) -> None:
    answer = generate(server)
    assert isinstance(answer["generated_text"], str)
    assert answer["generated_text"] == answer["generated_text"].strip()


def test_4_2_the_reply_is_compact_json_with_two_counts(server: Server) -> None:
    response = post(server, max_tokens=8)
    assert response.headers["content-type"] == "application/json"
    counts = SHAPE.fullmatch(response.content)
    assert counts
    assert int(counts[1]) <= 8
    assert int(counts[2]) > 8


def test_4_3_the_default_system_prompt_is_the_readmes_and_may_be_another(server: Server) -> None:
    unsaid = generate(server, temperature=0, max_tokens=8)
    assert unsaid == generate(server, temperature=0, max_tokens=8, system_prompt=DEFAULT_SYSTEM_PROMPT)
    assert server.get("/model_info").json()["defaults"]["system_prompt"] == DEFAULT_SYSTEM_PROMPT
    other = generate(server, temperature=0, max_tokens=8, system_prompt="You are a bard.")
    assert other["tokens_processed"] < unsaid["tokens_processed"]


@pytest.mark.parametrize("max_tokens", [1, 5])
def test_4_4_max_tokens_is_the_most(server: Server, max_tokens: int) -> None:
    assert generate(server, max_tokens=max_tokens)["tokens_generated"] <= max_tokens
    assert server.get("/model_info").json()["defaults"]["max_tokens"] == 256


def test_4_5_temperature_and_top_p_are_honoured(server: Server) -> None:
    greedy = generate(server, temperature=0, max_tokens=16)
    assert greedy == generate(server, temperature=1, top_p=0, max_tokens=16)
    drawn = {generate(server, temperature=20, top_p=1, max_tokens=16)["generated_text"] for _ in range(3)}
    assert drawn != {greedy["generated_text"]}


def test_4_6_context_size_threads_and_conversation_mode_are_honoured(server: Server) -> None:
    said = {"temperature": 0, "max_tokens": 8, "context_size": 2048, "threads": 4}
    chat, raw = (generate(server, **said, conversation_mode=mode) for mode in (True, False))
    assert raw["tokens_processed"] < chat["tokens_processed"]
    short = generate(server, prompt="Once upon a time", conversation_mode=False, max_tokens=64, context_size=16)
    assert short["tokens_processed"] + short["tokens_generated"] <= 16


def test_4_7_health_is_200(server: Server) -> None:
    assert server.get("/health").content == b'{"status":"healthy"}'
    assert httpx2.post(f"{server.url}/health", json={"prompt": "Hi"}, timeout=60).status_code == 200


def test_4_8_model_info_is_json(server: Server) -> None:
    info = server.get("/model_info").json()
    assert info["model"] == "plait-demo"
    assert info["model_path"].endswith(".gguf")
    assert (info["threads"], info["instances"], info["context_size"]) == (1, N_INSTANCES, 2048)
    assert info["defaults"].keys() >= {"temperature", "top_p", "context_size", "threads", "conversation_mode"}


def test_4_9_instances_take_requests_in_turn_and_at_the_same_time(server: Server) -> None:
    long = "Owls eat mice. " * 50
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: generate(server, prompt=long, temperature=0, max_tokens=8), range(8)))
    assert all(answer == answers[0] for answer in answers)
    until(lambda: sum(requests_of_instances(server)) == server.metric("plait_requests_total"))
    one, other = requests_of_instances(server)
    assert abs(one - other) <= 1


def test_4_9_both_instances_work_at_once(server: Server) -> None:
    """Two clients, who ask again as soon as they are answered."""
    with ThreadPoolExecutor() as clients:
        leave = Event()
        both = [clients.submit(write_until, leave, server) for _ in range(N_INSTANCES)]
        try:
            until(lambda: all(server.metric("plait_slots_writing", replica=str(n)) for n in range(N_INSTANCES)))
        finally:
            leave.set()
        assert all(each.result() for each in both)


def write_until(leave: Event, server: Server) -> bool:
    """Have answers written, one after the other, until they may leave."""
    while not leave.is_set():
        generate(server, prompt="Once upon a time", conversation_mode=False, temperature=2, max_tokens=1000)
    return True


def requests_of_instances(server: Server) -> list[float]:
    return [server.metric("plait_worker_requests_total", replica=str(n)) for n in range(N_INSTANCES)]


def test_4_10_max_threads_are_the_threads_of_an_instance_as_far_as_there_are_cores(server: Server) -> None:
    """The server of these tests was given MAX_THREADS=1."""
    assert server.get("/admin/models").json()[0]["info"]["n_threads"] == 1
    assert server.get("/model_info").json()["defaults"]["threads"] == 1


def test_4_10_max_threads_is_4_if_the_environment_says_nothing() -> None:
    assert (option("max_threads").envvar, option("max_threads").default) == ("MAX_THREADS", 4)
    assert (option("instances").envvar, option("instances").default) == ("MODEL_INSTANCES", 1)


def test_4_11_it_listens_on_port_8000_of_every_address() -> None:
    """It does not get that while somebody has the port of any one address."""
    with ExitStack() as stack:
        with suppress(OSError):  # somebody has it already
            stack.enter_context(socket.create_server(("127.0.0.2", 8000)))
        command = [sys.executable, "-m", "plait", "as", "bitnet", "-m", "plait-demo"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("plait: cannot listen on tcp://0.0.0.0:8000: Address already in use")


def test_4_12_bad_input_is_a_422_with_details(server: Server) -> None:
    response = httpx2.post(f"{server.url}/generate", json={"max_tokens": "many"}, timeout=60)
    assert response.status_code == 422
    assert response.content == (
        b'{"detail":[{"type":"missing","loc":["body","prompt"],"msg":"Field required","input":{"max_tokens":"many"}},'
        b'{"type":"int_parsing","loc":["body","max_tokens"],'
        b'"msg":"Input should be a valid integer, unable to parse string as an integer","input":"many"}]}'
    )


def test_4_13_the_root_greets(server: Server) -> None:
    assert server.get("/").content == b'{"message":"BitNet LLM API Server is running"}'


def test_a_request_knows_nothing_of_those_before_it(server: Server) -> None:
    first, *others = (generate(server, temperature=0, max_tokens=12) for _ in range(2 * N_INSTANCES))
    assert all(other == first for other in others)
