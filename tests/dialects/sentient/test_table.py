"""The rows of the check table of the Sentient inference server, each against `plait as sentient`."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from plait.cli.launchers import sentient
from tests.dialects.sentient.asking import FIELDS, MODEL, complete, load, message, post, words
from tests.serving import Server
from tests.waiting import SECONDS, until

PROMPT = "Once upon a time there was"


def completion(server: Server, n_tokens: int, prompt: str = PROMPT) -> tuple[str, int]:
    """The demo model's likeliest continuation and the number of the prompt's tokens, in OpenAI's words."""
    said = {"model": "demo", "prompt": prompt, "max_tokens": n_tokens, "temperature": 0}
    answer = post(server, "/openai/v1/completions", said).json()
    return answer["choices"][0]["text"], answer["usage"]["prompt_tokens"]


def states(server: Server) -> dict[str, str]:
    """The models, as the operator sees them."""
    return {model["name"]: model["state"] for model in server.get("/admin/models").json()}


def workers(server: Server) -> set[int]:
    """The server's processes, from when they are more than its copies."""
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return {pid for pid in children if b"plait.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def others(server: Server, before: set[int]) -> set[int]:
    """Processes that have come since."""
    return workers(server) - before


@contextmanager
def loading_slowly(server: Server, name: str) -> Iterator[str]:
    """Load a model whose worker stands still for the time of the block; what it is called in the end."""
    deadline = time.monotonic() + SECONDS
    for number in count():
        assert time.monotonic() < deadline, "no worker was caught while it loads"
        before = workers(server)
        with ThreadPoolExecutor() as threads:
            loading = threads.submit(load, server, f"{name} {number}")
            until(partial(others, server, before))
            (worker,) = others(server, before)
            os.kill(worker, signal.SIGSTOP)
            try:
                # Now and then the worker is done before it is stopped.
                if is_caught := states(server)[f"{name} {number}"] == "loading":
                    yield f"{name} {number}"
            finally:
                os.kill(worker, signal.SIGCONT)
            assert message(loading.result()) == f"{name} {number} Model loaded"
        if is_caught:
            return


def test_1_1_load_model_says_which_model_is_loaded(empty_server: Server) -> None:
    response = load(empty_server, "row 1.1")
    assert response.content == b'{"Message":"row 1.1 Model loaded"}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == "34"


def test_1_2_a_name_is_loaded_once_whatever_the_path(server: Server) -> None:
    for path in (MODEL, "elsewhere.gguf"):
        assert words(load(server, "demo", path)) == "Warning: Model demo already loaded"


def test_1_2_of_two_loads_of_one_name_at_once_one_loads(empty_server: Server) -> None:
    with ThreadPoolExecutor() as threads:
        said = [response.text for response in threads.map(lambda _: load(empty_server, "row 1.2"), range(3))]
    assert sorted(said) == ["Warning: Model row 1.2 already loaded"] * 2 + ['{"Message":"row 1.2 Model loaded"}']


def test_1_3_an_empty_path_is_an_error_in_text(empty_server: Server) -> None:
    assert words(load(empty_server, "row 1.3", "")) == "Error: Model path must be provided"


def test_1_4_a_missing_file_is_a_clean_error(empty_server: Server) -> None:
    response = load(empty_server, "row 1.4", "/nowhere/model.gguf")
    assert response.status_code == 404
    assert response.text == "Error: there is no file /nowhere/model.gguf"
    assert "row 1.4" not in states(empty_server)


def test_1_4_so_is_a_file_that_is_no_model(empty_server: Server) -> None:
    response = load(empty_server, "row 1.4", __file__)
    assert response.status_code == 400
    assert response.text == f"Error: {__file__}: not a GGUF file"
    assert states(empty_server)["row 1.4"] == "failed"
    assert "row 1.4" not in message(httpx2.get(f"{empty_server.url}/status", timeout=60)).split("\n")


@pytest.mark.parametrize("path", ["plait-demo", "hf:owner/repo", "a=b.gguf", "~/model.gguf", "a\0b", "a" * 5000])
def test_1_4_a_path_is_only_ever_a_path(empty_server: Server, path: str) -> None:
    response = load(empty_server, "row 1.4", path)
    assert response.status_code == 404
    assert response.text == f"Error: there is no file {Path.cwd()}/{path}"


@pytest.mark.parametrize("field", FIELDS)
def test_1_5_all_six_fields_are_required(server: Server, field: str) -> None:
    body = {name: value for name, value in FIELDS.items() if name != field}
    response = post(server, "/completions", body)
    assert response.status_code == 422
    problem = f"missing field `{field}` at line 1 column {len(response.request.read())}"
    assert response.text == f"Failed to deserialize the JSON body into the target type: {problem}"


def test_1_6_the_answer_is_the_text_without_the_prompt(server: Server) -> None:
    text, n_prompt = completion(server, 5)
    assert message(complete(server, prompt=PROMPT, max_tokens=n_prompt + 4)) == text


def test_1_7_a_model_that_is_not_loaded_is_an_error_in_text(server: Server) -> None:
    said = words(complete(server, model="other"))
    assert said == "Error: Model other not loaded. Please load the model using the /load_model endpoint."


@pytest.mark.parametrize("n_output", [1, 2, 7])
def test_1_8_max_tokens_counts_the_prompt_and_is_off_by_one(server: Server, n_output: int) -> None:
    text, n_prompt = completion(server, n_output)
    assert message(complete(server, prompt=PROMPT, max_tokens=n_prompt + n_output - 1)) == text


@pytest.mark.parametrize("missing", [1, 3, 2**31])
def test_1_8_a_prompt_beyond_max_tokens_is_answered_with_nothing(server: Server, missing: int) -> None:
    _, n_prompt = completion(server, 1)
    max_tokens = max(n_prompt - missing, -(2**31))
    assert complete(server, prompt=PROMPT, max_tokens=max_tokens).content == b'{"Message":""}'


def test_1_9_seeds_are_accepted_and_change_nothing(server: Server) -> None:
    seeds = (0, 1234, 2**32 - 1)
    assert len({complete(server, max_tokens=40, seed=seed).content for seed in seeds}) == 1


def test_1_10_status_lists_the_names_line_by_line(server: Server) -> None:
    load(server, "row 1.10")
    names = message(server.get("/status")).split("\n")
    assert names == [name for name, state in states(server).items() if state == "ready"]
    assert {"demo", "row 1.10"} <= set(names)


def test_1_11_several_models_load_and_answer_at_once(server: Server) -> None:
    names = ["row 1.11 a", "row 1.11 b"]
    with ThreadPoolExecutor() as threads:
        said = [response.text for response in threads.map(lambda name: load(server, name), names)]
        assert said == [f'{{"Message":"{name} Model loaded"}}' for name in names]
        texts = threads.map(lambda name: message(complete(server, model=name, max_tokens=40)), [*names, "demo"])
        assert len(set(texts)) == 1


def test_1_11_completions_go_on_while_another_model_loads(server: Server) -> None:
    expected = message(complete(server))
    with loading_slowly(server, "row 1.11 c") as name:
        assert message(complete(server)) == expected
        assert name not in message(server.get("/status")).split("\n")
        assert words(complete(server, model=name)).startswith(f"Error: Model {name} not loaded.")
        assert states(server)[name] == "loading"
    assert message(complete(server, model=name)) == expected


@pytest.mark.parametrize(
    ("asked", "sent", "status"),
    [
        ("POST /completions", {"content": b"{}"}, 415),
        ("POST /completions", {"content": b"{}", "headers": {"content-type": "text/json"}}, 415),
        ("POST /load_model", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST /load_model", {"json": {}}, 422),
        ("POST /completions", {"json": {"prompt": "a" * 2 * 1024**2}}, 413),
        ("GET /completions", {}, 405),
        ("POST /status", {"json": {}}, 405),
        ("GET /unknown", {}, 404),
    ],
)
def test_1_12_what_axum_refuses_is_refused_as_axum_does(
    empty_server: Server, asked: str, sent: dict[str, Any], status: int
) -> None:
    method, path = asked.split()
    response = httpx2.request(method, empty_server.url + path, **sent, timeout=60)
    said = {
        400: "Failed to parse the request body as JSON: EOF while parsing an object at line 1 column 1",
        404: "",
        405: "",
        413: "Failed to buffer the request body: length limit exceeded",
        415: "Expected request with `Content-Type: application/json`",
        422: "Failed to deserialize the JSON body into the target type: missing field `model_name` at line 1 column 2",
    }
    assert (response.status_code, response.text) == (status, said[status])
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/load_model", "/sentient/load_model"])
def test_1_12_json_may_have_a_longer_name_and_something_behind_it(empty_server: Server, path: str) -> None:
    body = b'{"model_name": "row 1.12", "more": [null], "model_path": ""} and more'
    headers = {"content-type": "application/vnd.sentient+json; charset=utf-8"}
    response = httpx2.post(empty_server.url + path, content=body, headers=headers, timeout=60)
    assert words(response) == "Error: Model path must be provided"


def test_1_13_the_port_is_a_flag_and_3000_by_default(empty_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = (param for param in sentient.command.params if param.name == "port")
    assert (port.opts, port.default) == (["-p", "--port"], 3000)
    assert empty_server.url.startswith(f"http://{sentient.HOST}:")
    sentient.say([], ["http://127.0.0.1:3000"], 0.5)
    assert capsys.readouterr().out == "Server running at http://127.0.0.1:3000\n"


def test_1_13_help_shows_the_port() -> None:
    told = CliRunner().invoke(sentient.command, ["--help"])
    assert told.exit_code == 0
    assert "-p, --port" in told.output and "3000" in told.output


@pytest.mark.parametrize("port", ["http", "-1", "65536"])
def test_1_13_a_port_that_is_none_is_refused(port: str) -> None:
    assert CliRunner().invoke(sentient.command, ["-p", port]).exit_code == 2


def test_1_14_a_prompt_to_the_root_is_greeted(empty_server: Server) -> None:
    assert words(post(empty_server, "/", {"prompt": "Hi"})) == "Hello, World returned!"


def test_1_14_without_a_prompt_it_is_refused(empty_server: Server) -> None:
    response = post(empty_server, "/", {"prompt": 5})
    problem = "prompt: invalid type: integer `5`, expected a string at line 1 column 11"
    assert response.status_code == 422
    assert response.text == f"Failed to deserialize the JSON body into the target type: {problem}"


def test_a_context_that_is_too_small_is_refused_and_the_connection_lives(server: Server) -> None:
    with httpx2.Client(base_url=server.url, timeout=60) as http:
        response = http.post("/completions", json=FIELDS | {"n_ctx": 2})
        assert response.status_code == 400
        assert response.text.startswith("Error: the prompt has ") and " holds 2" in response.text
        assert message(http.post("/completions", json=FIELDS)) == message(complete(server))


def test_an_answer_ends_where_its_context_does(server: Server) -> None:
    text, n_prompt = completion(server, 3)
    assert message(complete(server, prompt=PROMPT, max_tokens=2000, n_ctx=n_prompt + 3)) == text


def test_a_context_that_no_slot_has_is_refused_with_both_numbers(server: Server) -> None:
    response = complete(server, n_ctx=1_000_000)
    n_ctx = server.get("/admin/models").json()[0]["info"]["n_ctx"]
    assert response.status_code == 400
    assert response.text == f"Error: n_ctx: 1000000 tokens; {n_ctx} are the most here"


def test_a_context_of_nothing_is_refused_before_the_model_is_looked_for(server: Server) -> None:
    response = complete(server, n_ctx=0, model="other")
    assert (response.status_code, response.text) == (400, "Error: n_ctx: a context has at least one token")


@pytest.mark.parametrize("n_threads", [-5, 0, 1, 2**31 - 1])
def test_any_number_of_threads_gives_the_same_text(server: Server, n_threads: int) -> None:
    assert message(complete(server, n_threads=n_threads)) == message(complete(server))
