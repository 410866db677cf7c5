"""A: values of a request's fields."""

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.inputs.asking import TALE, chat, complete, is_refused, post, send, streaming, text_of
from tests.serving import Server
from tests.waiting import until


@pytest.mark.parametrize("n", [0, -1, 257, 1_000_000])
def test_a1_n_is_bounded(server: Server, n: int) -> None:
    assert is_refused(post(server, prompt=TALE, n=n), "n")


def test_a1_so_are_all_choices_of_many_prompts(server: Server) -> None:
    assert is_refused(post(server, prompt=[TALE] * 256, n=2, max_tokens=1), "n")


def test_a2_best_of_is_refused(server: Server) -> None:
    assert is_refused(post(server, prompt=TALE, best_of=1_000_000), "best_of")


def test_a3_knobs_of_another_engine_have_no_effect(server: Server) -> None:
    knobs = {"n_discard": -1, "n_keep": -5, "id_slot": 99, "n_cache_reuse": -1}
    assert text_of(complete(server, temperature=0, **knobs)) == text_of(complete(server, temperature=0))


@pytest.mark.parametrize("wanted", [10**9, -1, 21])
def test_a4_logprobs_are_bounded(server: Server, wanted: int) -> None:
    assert is_refused(post(server, prompt=TALE, logprobs=wanted), "logprobs")
    assert is_refused(chat(server, TALE, logprobs=True, top_logprobs=wanted))


OUT_OF_RANGE = ("-2147483649", "2147483648", "9223372036854775808", "1" * 5000)
NO_COUNTS = ('"7"', "true", "[]", "{}", "1e400", "-1e400", "1.5")
NO_FACTORS = ("1e400", "-1e400", '"0.5"', "true", "[]", "-3", "1e30")


COUNTS = ("top_k", "min_keep", "repeat_last_n", "max_tokens", "n_predict", "dry_allowed_length")
FACTORS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "xtc_threshold")
NO_JSON = ("NaN", "Infinity", "-Infinity")
"""These are nobody's fault in particular."""


def with_value(field: str, value: str) -> bytes:
    return b'{"prompt": "a", "%b": %b}' % (field.encode(), value.encode())


@pytest.mark.parametrize("value", [*OUT_OF_RANGE, *NO_COUNTS, *NO_JSON], ids=lambda value: str(value)[:20])
def test_a5_a_count_that_is_none_is_refused(server: Server, value: str) -> None:
    for field in COUNTS:
        assert is_refused(send(server, with_value(field, value)), None if value in NO_JSON else field)


@pytest.mark.parametrize("value", [*NO_FACTORS, *NO_JSON])
def test_a5_a_number_that_is_none_is_refused(server: Server, value: str) -> None:
    for field in FACTORS:
        assert is_refused(send(server, with_value(field, value)), None if value in NO_JSON else field)


@pytest.mark.parametrize("value", [*NO_COUNTS, *NO_JSON])
def test_a5_what_is_no_whole_number_is_no_seed(server: Server, value: str) -> None:
    assert is_refused(send(server, with_value("seed", value)), None if value in NO_JSON else "seed")


@pytest.mark.parametrize("seed", [-1, 0, 2**31, 2**32 - 1, 2**63, -(2**63)])
def test_a5_any_whole_number_is_a_seed(server: Server, seed: int) -> None:
    complete(server, seed=seed)


@pytest.mark.parametrize(("field", "value"), [("top_k", -1), ("top_k", 0), ("repeat_last_n", -1), ("stop", None)])
def test_a5_what_is_at_the_limit_is_served(server: Server, field: str, value: object) -> None:
    complete(server, **{field: value})


@pytest.mark.parametrize("key", ["2048", "2147483647", "2147483648", "-1", "AI", ""])
def test_a6_a_bias_is_for_a_token(server: Server, key: str) -> None:
    assert is_refused(post(server, prompt=TALE, logit_bias={key: 1}), "logit_bias")


def test_a7_biases_are_bounded(server: Server) -> None:
    assert is_refused(post(server, prompt=TALE, logit_bias={str(i): 1 for i in range(1025)}), "logit_bias")
    assert is_refused(post(server, prompt=TALE, logit_bias={str(i): 1 for i in range(100_000)}), "logit_bias")
    complete(server, logit_bias={str(i): 1 for i in range(1024)})


@pytest.mark.parametrize("stop", [["x"] * 10_000, ["x"] * 17, "x" * 1_000_000, "ä" * 129, "", [""], [1], {}])
def test_a8_stop_strings_are_bounded(server: Server, stop: object) -> None:
    assert is_refused(post(server, prompt=TALE, stop=stop), "stop")


def test_a8_up_to_the_bounds_they_are_served(server: Server) -> None:
    complete(server, stop=["x" * 256] * 16)


NOTHING: list[dict[str, object]] = [
    {},
    {"prompt": []},
    {"prompt": [[]]},
    {"prompt": "a", "max_tokens": 0, "echo": True},
]


@pytest.mark.parametrize("fields", NOTHING)
def test_a9_nothing_is_asked_for(server: Server, fields: dict[str, object]) -> None:
    assert is_refused(post(server, **fields))


def test_a9_no_text_and_no_turns(server: Server) -> None:
    assert complete(server, prompt="").json()["usage"]["prompt_tokens"] == 1
    assert is_refused(post(server, "/v1/chat/completions", messages=[]), "messages")


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 4}, {"max_tokens": 2**31 - 1}])
def test_a10_a_prompt_longer_than_the_context(server: Server, fields: dict[str, object]) -> None:
    answer = post(server, prompt=[300] * 2048, **fields)
    assert is_refused(answer, "prompt")
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["message"].count("2048") == 2


def test_a10_an_answer_ends_where_the_context_does(server: Server) -> None:
    answer = complete(server, prompt=[300] * 2047, max_tokens=100, ignore_eos=True).json()
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a11_one_id_twice_is_two_requests(server: Server) -> None:
    def ask(_: int) -> httpx2.Response:
        return send(server, b'{"prompt": "a", "max_tokens": 20, "id": "same"}', x_request_id="same")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert all(answer.status_code == 200 for answer in answers)
    assert len({answer.json()["id"] for answer in answers} | {"same"}) == 5


@pytest.mark.parametrize("form", [{"json_object": False}, {"json": ""}, "text", {"type": 1}, {"type": "none"}])
def test_a12_a_form_that_is_none_is_refused(server: Server, form: object) -> None:
    assert is_refused(post(server, prompt=TALE, response_format=form), "response_format")


def test_a12_text_is_text(server: Server) -> None:
    assert chat(server, TALE, response_format={"type": "text"}).status_code == 200


TWICE = {
    "a field": (b'{"prompt": "a", "prompt": "b"}', "prompt"),
    "a field in other letters": (b'{"n": 1, "prompt": "a", "\\u006e": 2}', "n"),
    "an unknown field": (b'{"prompt": "a", "x": 1, "x": 1}', "x"),
    "a field of a field": (b'{"prompt": "a", "logit_bias": {"7": 1, "7": -1}}', "logit_bias"),
}


@pytest.mark.parametrize(("body", "param"), TWICE.values(), ids=TWICE.keys())
def test_a13_a_key_twice(server: Server, body: bytes, param: str) -> None:
    assert is_refused(send(server, body), param)


NO_OBJECTS = [b"", b"[]", b"null", b'"prompt"', b"7", b'{"prompt": "a"} x', b'{"prompt": "a"}{}', b"{'prompt': 'a'}"]
OTHER_TEXTS = [b'\xef\xbb\xbf{"prompt": "a"}', *('{"prompt": "a"}'.encode(code) for code in ("utf-16", "utf-32"))]


@pytest.mark.parametrize("body", [*NO_OBJECTS, *OTHER_TEXTS])
def test_a13_what_is_no_object(server: Server, body: bytes) -> None:
    assert is_refused(send(server, body))


def test_a13_unknown_fields_are_ignored(server: Server) -> None:
    complete(server, frobnicate={"a": [1, 2]}, __proto__={"n": 7})


class Look:
    """At a server's figures. Each look is an answer, and the next one's figures count it."""

    def __init__(self, server: Server) -> None:
        self.server, self.n = server, 0

    def __call__(self, *names: str) -> float:
        self.n += len(names)
        return sum(self.server.metric(name) for name in names)

    def n_answered(self) -> float:
        """Requests of others that have ended."""
        n_looks = self.n
        return self("plait_http_responses_total") - n_looks


AT_WORK = ("plait_slots_reading", "plait_slots_writing", "plait_queue")


def test_a14_a_thousand_clients_that_hang_up_at_once(server: Server) -> None:
    look = Look(server)
    n_before = look.n_answered()
    address = urlsplit(server.url)
    body = b'{"prompt": "a", "stream": true, "max_tokens": 2000, "ignore_eos": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    for _ in range(1000):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    until(lambda: look.n_answered() >= n_before + 1000)
    until(lambda: look("plait_http_running") == 1)  # who looks: the steady stream ends, too
    until(lambda: look(*AT_WORK) == 0)


def test_a14_clients_that_hang_up_at_their_first_word(server: Server) -> None:
    n_before = server.metric("plait_worker_cancelled_total")
    for _ in range(20):
        with streaming(server, prompt=TALE, max_tokens=2000, ignore_eos=True) as texts:
            next(texts)
    until(lambda: server.metric("plait_slots_writing") + server.metric("plait_queue") <= 1)
    # Now and then a text ends before its reader is gone.
    assert server.metric("plait_worker_cancelled_total") > n_before


@pytest.mark.parametrize("field", [{"chat_template": "{{ x }}"}, {"chat_template_kwargs": {"tokenize": True}}])
def test_a15_a_request_brings_no_template(server: Server, field: dict[str, object]) -> None:
    assert is_refused(chat(server, TALE, **field), next(iter(field)))
