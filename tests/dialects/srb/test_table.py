"""llama-srb-api's check table, row by row, against a running server."""

import re

import httpx2
import pytest

from plait.cli.launchers.srb import command
from plait.errors import Overloaded, PlaitError, Unavailable
from plait.fleet.registry import DEMO, resolve
from tests.dialects.srb.asking import PATH, Tokens, always, ask, ends, fake, in_step, post, texts, told
from tests.fakes.fleet import FakeFleet, play
from tests.serving import STARTS_WITHIN, Server, free_port, running
from tests.waiting import until

PROMPT = "Once upon a time there was a girl who had a dog, and the dog had a ball. One day"


def test_2_1_completions_stream_flat_events_one_a_line(server: Server) -> None:
    response = post(server, prompt=PROMPT)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["transfer-encoding"] == "chunked"
    lines = response.content.split(b"\n")
    assert lines.pop() == b""
    assert all(re.fullmatch(rb'data: {"event": "(start|stream|stop|done)", .+}', line) for line in lines)


def test_2_2_a_stream_has_a_start_words_stops_and_an_end(server: Server) -> None:
    first, *between, last = ask(server, prompt=PROMPT)
    assert (first, last) == ({"event": "start", "count": 8}, {"event": "done", "count": 8})
    keys = {"stream": ["event", "index", "text"], "stop": ["event", "index", "length", "stop"]}
    assert all(list(event) == keys[event["event"]] for event in between)
    assert [event["index"] for event in ends(between)] == list(range(8))


@pytest.mark.parametrize("seed", range(3))
def test_2_3_choices_speak_in_step_and_each_stop_follows_its_word(server: Server, seed: int) -> None:
    answer = ask(server, prompt=PROMPT, seed=seed)
    assert answer == in_step(answer)


def test_2_4_a_period_ends_a_completion_from_the_fourth_token_on(server: Server, tokens: Tokens) -> None:
    word = 'data: {"event": "stream", "index": %d, "text": "."}\n'
    stop = 'data: {"event": "stop", "index": %d, "length": 3, "stop": 1}\n'
    assert post(server, prompt=PROMPT, n=2, **always(tokens.period)).text == (
        'data: {"event": "start", "count": 2}\n'
        + (word % 0 + word % 1) * 3
        + (word % 0 + stop % 0 + word % 1 + stop % 1)
        + 'data: {"event": "done", "count": 2}\n'
    )


def test_2_4_nothing_else_is_a_stop_string(server: Server) -> None:
    answer = ask(server, prompt=PROMPT, seed=1)
    for words, end in zip(texts(answer), ends(answer), strict=True):
        assert end["length"] == len(words) - 1
        assert end["stop"] == any(mark in words[-1] for mark in ".\n")
        assert not any(mark in word for word in words[3:-1] for mark in ".\n")


def test_2_5_after_step_64_a_completion_ends_without_a_stop(server: Server, tokens: Tokens) -> None:
    answer = ask(server, prompt=PROMPT, n=2, **always(tokens.letter))
    assert texts(answer) == [["b"] * 65] * 2
    assert ends(answer) == [{"event": "stop", "index": index, "length": 64, "stop": 0} for index in range(2)]


def test_2_5_the_models_own_end_is_not_a_stop_string(server: Server, tokens: Tokens) -> None:
    answer = ask(server, prompt=PROMPT, n=1, **always(tokens.end))
    assert texts(answer) == [[""]]
    assert ends(answer) == [{"event": "stop", "index": 0, "length": 0, "stop": 0}]


def test_2_6_eight_completions_and_port_9090_are_the_defaults() -> None:
    context = command.make_context("srb", ["--model=x.gguf"])
    assert (context.params["n"], context.params["port"]) == (8, 9090)
    context = command.make_context("srb", ["--model", "x.gguf", "--n", "12", "--port=80"])
    assert (context.params["n"], context.params["port"]) == (12, 80)


def test_2_6_n_is_what_a_request_gets_that_does_not_say() -> None:
    port = free_port()
    flags = ["--model", DEMO, "--n", "3", f"--port={port}", "--args", "-t 1"]
    with running(["as", "srb", *flags], port, ready="/health") as server:
        assert ask(server, prompt=PROMPT)[0] == {"event": "start", "count": 3}


@pytest.mark.parametrize("n", [1, 8, 12])
def test_2_7_the_prompt_is_computed_once_for_all(server: Server, n: int) -> None:
    def n_computed() -> float:
        return server.metric("plait_prompt_tokens_total")

    before, prompt = n_computed(), f"{n} dogs. {PROMPT}"
    ask(server, prompt=prompt, n=n)
    again = httpx2.post(f"{server.url}/openai/v1/completions", json={"prompt": prompt, "max_tokens": 1}, timeout=60)
    n_prompt = again.json()["usage"]["prompt_tokens"]
    # The second request knows all but the token that must be decoded for its logits.
    assert n_computed() == before + n_prompt + 1


def test_2_8_while_it_loads_the_engine_is_not_ready() -> None:
    port = free_port()
    # Being looked at whether it is reproducible, a model takes seconds to load.
    env = {"PLAIT_LISTEN": f"tcp://127.0.0.1:{port}", "PLAIT_PROBE_SECONDS": "20"}
    with running(["as", "srb", "--model", DEMO, "--args", "-t 1"], port, env=env, ready="/livez") as server:
        for answer in (post(server, prompt=PROMPT), server.get("/health")):
            assert (answer.status_code, answer.text) == (500, '{"error":"Engine not ready"}\n')
        until(lambda: server.answers("/health"), STARTS_WITHIN)
        assert ask(server, prompt=PROMPT)[-1] == {"event": "done", "count": 8}


@pytest.mark.anyio
@pytest.mark.parametrize("error", [Unavailable("demo is not ready", retry_after=2), Overloaded("full", retry_after=1)])
async def test_2_8_while_it_loads_or_has_no_place_the_engine_is_not_ready(error: PlaitError) -> None:
    response = await told(FakeFleet(play(error)))
    assert (response.status_code, response.headers["content-type"]) == (500, "application/json")
    assert response.content == b'{"error":"Engine not ready"}\n'


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", "/health"), ("GET", "/v1/models")])
async def test_2_8_without_a_model_the_engine_is_not_ready(method: str, path: str) -> None:
    async with fake(FakeFleet(names=[])) as http:
        response = await http.request(method, path, json={"prompt": "Once"})
    assert (response.status_code, response.text) == (500, '{"error":"Engine not ready"}\n')


def test_2_9_the_model_is_its_path_and_the_state_of_its_engine(server: Server) -> None:
    response = server.get("/v1/models")
    assert response.headers["content-type"] == "application/json"
    assert response.text == f'{{"data":[{{"engine_state":"READY","id":"{resolve(DEMO).path}"}}]}}\n'


def test_2_10_n_and_max_tokens_are_the_requests_to_say(server: Server, tokens: Tokens) -> None:
    answer = ask(server, prompt=PROMPT, n=12, max_tokens=5, **always(tokens.letter))
    assert texts(answer) == [["b"] * 5] * 12
    assert answer == in_step(answer)


def test_2_10_more_than_the_maximum_is_refused_in_words(server: Server) -> None:
    response = post(server, prompt=PROMPT, n=17)
    assert response.status_code == 400
    assert "n: 17 completions; 16 are the most" in response.text


def test_2_10_sampling_is_the_requests_to_say(server: Server) -> None:
    alike, *others = texts(ask(server, prompt=PROMPT, temperature=0))
    assert others == [alike] * 7
    assert ask(server, prompt=PROMPT, seed=7) == ask(server, prompt=PROMPT, seed=7)
    assert ask(server, prompt=PROMPT, seed=7, top_k=1, top_p=1, min_p=0) == ask(server, prompt=PROMPT, temperature=0)


def test_2_10_stop_strings_and_when_they_begin_to_count_are_the_requests_to_say(server: Server, tokens: Tokens) -> None:
    def length(**fields: object) -> int:
        (end,) = ends(ask(server, prompt=PROMPT, n=1, max_tokens=20, **always(tokens.letter), **fields))
        return int(end["length"])

    assert length() == 19
    assert length(stop="b") == 3
    assert length(stop=["c", "bb"], min_tokens=0) == 1
    assert length(stop="b", min_tokens=10) == 10


def normal(response: httpx2.Response) -> str:
    """A body without what differs from one time to the next."""
    text = re.sub(r"cmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "cmpl-ID", response.text)
    return re.sub(r'("created": ?)\d{10,}', r"\g<1>0", text)


def test_2_11_with_stream_the_answer_is_chunks_of_the_later_version(server: Server, tokens: Tokens) -> None:
    response = post(server, prompt=PROMPT, stream=True, n=2, max_tokens=2, **always(tokens.letter))
    chunk = (
        'data: {"id": "cmpl-ID", "object": "text_completion", "created": 0, "model": "plait-demo.gguf", '
        '"choices": [{"index": %d, "text": "b", "finish_reason": %s}]}\n\n'
    )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert normal(response) == (
        chunk % (0, "null")
        + chunk % (1, "null")
        + chunk % (0, '"length"')
        + chunk % (1, '"length"')
        + "data: [DONE]\n\n"
    )


def test_2_11_a_stop_string_is_named_and_not_said(server: Server, tokens: Tokens) -> None:
    response = post(server, prompt=PROMPT, stream=True, stop="bb", min_tokens=0, **always(tokens.letter))
    assert normal(response) == (
        'data: {"id": "cmpl-ID", "object": "text_completion", "created": 0, "model": "plait-demo.gguf", '
        '"choices": [{"index": 0, "finish_reason": "stop", "stop_reason": "bb", "text": null}]}\n\n'
        "data: [DONE]\n\n"
    )


def test_2_11_without_streaming_the_answer_is_one_value(server: Server, tokens: Tokens) -> None:
    response = post(server, prompt=PROMPT, stream=False, n=2, **always(tokens.letter))
    choice = '{"finish_reason":"length","index":%d,"logprobs":null,"text":"' + "b" * 64 + '"}'
    assert response.headers["content-type"] == "application/json"
    assert normal(response) == (
        f'{{"choices":[{choice % 0},{choice % 1}],"created":0,"id":"cmpl-ID","model":"plait-demo.gguf",'
        '"object":"text_completion"}\n'
    )


def test_2_11_health_is_the_engines(server: Server) -> None:
    assert server.get("/health").text == '{"error":"Engine ready."}\n'


# ── what is not in the table ─────────────────────────────────────────────────────────────────────────────────────


def page(title: str, words: str) -> str:
    """Flask's, for an error."""
    name = title.partition(" ")[2]
    return f"<!doctype html>\n<html lang=en>\n<title>{title}</title>\n<h1>{name}</h1>\n<p>{words}</p>\n"


# method, path, content type, body, answer
REFUSALS = [
    ("POST", PATH, "application/json", b'{"prompt": ', page("400 Bad Request", "the body is not valid JSON: .*")),
    ("POST", PATH, "application/json", b'["Once"]', page("400 Bad Request", "Expected .*")),
    ("POST", PATH, "application/json", b'{"prompt": 5}', page("400 Bad Request", "prompt: .*")),
    ("POST", PATH, "application/json", b'{"n": 0}', page("400 Bad Request", "n: .*")),
    ("POST", PATH, "application/json", b'{"stop": ["<b>", ""]}', page("400 Bad Request", "stop: .*")),
    ("POST", PATH, "text/plain", b'{"prompt": "a"}', page("415 Unsupported Media Type", ".*application/json.*")),
    ("GET", PATH, "application/json", b"", page("405 Method Not Allowed", ".*")),
    ("GET", "/v1/<i>", "application/json", b"", page("404 Not Found", ".*/v1/&lt;i&gt;")),
]


@pytest.mark.parametrize(("method", "path", "kind", "body", "answer"), REFUSALS)
def test_what_is_wrong_is_told_on_a_page_of_flasks(
    server: Server, method: str, path: str, kind: str, body: bytes, answer: str
) -> None:
    response = httpx2.request(method, server.url + path, content=body, headers={"content-type": kind}, timeout=60)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert str(response.status_code) in answer
    assert re.fullmatch(answer, response.text), response.text


def test_a_prompt_that_is_too_long_is_refused_and_the_server_goes_on(server: Server) -> None:
    response = post(server, prompt="a dog and " * 5000)
    assert response.status_code == 400
    assert ask(server, prompt=PROMPT)[-1] == {"event": "done", "count": 8}


def test_a_body_without_a_prompt_is_answered(server: Server) -> None:
    assert post(server).status_code in (200, 400)


def test_any_page_may_ask(server: Server) -> None:
    response = httpx2.get(f"{server.url}/health", headers={"origin": "http://example.org"}, timeout=60)
    assert response.headers["access-control-allow-origin"] == "*"


def test_who_leaves_stops_all_choices(server: Server, tokens: Tokens) -> None:
    fields = {"prompt": PROMPT, "n": 12, "max_tokens": 1500, **always(tokens.letter)}
    before = server.metric("plait_worker_cancelled_total")
    with httpx2.stream("POST", server.url + PATH, json=fields, timeout=60) as response:
        assert next(response.iter_lines()) == 'data: {"event": "start", "count": 12}'
    until(lambda: server.metric("plait_worker_cancelled_total") == before + 1)
    until(lambda: server.metric("plait_slots_writing") == 0)
