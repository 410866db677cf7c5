"""B: texts, and what the tokenizer makes of them."""

from collections.abc import Callable, Iterator

import gguf
import httpx2
import pytest

from plait.fleet.registry import resolve
from plait.llama.pretokenizer import MAX_RUN
from tests.inputs import spoilt
from tests.inputs.asking import TALE, chat, complete, is_refused, n_prompt, post, send, streaming, text_of, workers
from tests.native import models
from tests.serving import Server, serving

LETTERS = ["a", ".", " ", "\n", "字", "1", "'", "\u0301", "\t a"]
RUNS = [*(letter * 26_000 for letter in LETTERS), "a" * 1_000_000]


@pytest.mark.parametrize("text", RUNS, ids=lambda text: f"{text[:1]!a}-{len(text)}")
def test_b1_a_long_run_of_one_letter(server: Server, text: str) -> None:
    answer = post(server, prompt=text)
    assert is_refused(answer)
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.fixture(scope="module")
def recursive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server, whose model's texts are cut by a regex that calls itself once for each letter."""
    path = tmp_path_factory.mktemp("models") / "recursive.gguf"
    path.write_bytes(spoilt.with_splitter(b"bloom"))
    with serving("-m", str(path), "--threads", "1", "--slots", "1", "--ctx-size", "131072") as server:
        yield server


@pytest.mark.parametrize("letter", ["a", "a ", "字", " "])
def test_b1_a_run_that_a_regex_would_not_survive(recursive: Server, letter: str) -> None:
    before = workers(recursive)
    answer = post(recursive, prompt=(letter * 4_000_000)[: 4_000_000 // len(letter.encode())])
    assert is_refused(answer)
    assert answer.json()["error"]["code"] == "prompt_not_tokenizable"
    assert workers(recursive) == before


def test_b1_a_run_that_it_does_survive(recursive: Server) -> None:
    before = workers(recursive)
    answer = post(recursive, prompt="a" * MAX_RUN + "\n" * MAX_RUN)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert workers(recursive) == before


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server, whose model's texts are cut by a regex that looks at all of a number from each of its digits."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    models.write_llama(path, pre="superbpe")
    with serving("-m", str(path), "--threads", "1", "--slots", "1", "--ctx-size", "2048") as server:
        yield server


@pytest.mark.parametrize("send_run", [lambda server, run: post(server, prompt=run), chat])
def test_b1_a_run_that_a_regex_would_take_minutes_for(
    slow: Server, send_run: Callable[[Server, str], httpx2.Response]
) -> None:
    before = workers(slow)
    answer = send_run(slow, "7" * 30_000)
    assert is_refused(answer)
    assert answer.json()["error"]["code"] == "prompt_not_tokenizable"
    assert workers(slow) == before
    complete(slow, prompt="7" * 300)


HALVES = [
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\\udc00\\ud800"}',
    b'{"prompt": "a", "stop": "\\ud800"}',
    b'{"prompt": "a", "model": "\\ud800"}',
    b'{"prompt": "a", "logit_bias": {"\\ud800": 1}}',
    b'{"prompt": "a", "stream": true, "stop": ["\\udfff"]}',
]


@pytest.mark.parametrize("body", HALVES)
def test_b2_half_a_surrogate_pair(server: Server, body: bytes) -> None:
    assert is_refused(send(server, body))


def test_b2_half_a_surrogate_pair_in_a_turn(server: Server) -> None:
    turn = b'{"role": "user", "content": "a", "name": "\\ud800"}'
    assert is_refused(send(server, b'{"messages": [%b]}' % turn, "/v1/chat/completions"))


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80"])
def test_b3_bytes_that_are_no_text_are_not_echoed(server: Server, text: bytes) -> None:
    for field in (b"suffix", b"model", b"unknown"):
        answer = send(server, b'{"prompt": "a", "max_tokens": 1, "%b": "%b"}' % (field, text))
        assert is_refused(answer)
        assert text not in answer.content


def test_b4_half_a_character_at_the_end(server: Server) -> None:
    bias = {str(first_byte_of_two()): 100}
    assert text_of(complete(server, logit_bias=bias, max_tokens=1, temperature=0)) == "\ufffd"
    with streaming(server, prompt=TALE, logit_bias=bias, max_tokens=3, temperature=0) as texts:
        assert "".join(texts) == "\ufffd" * 3


def first_byte_of_two() -> int:
    """The token of the byte C3 alone, which the demo model's vocabulary spells as the letter of that number."""
    field = gguf.GGUFReader(resolve("plait-demo").path).fields["tokenizer.ggml.tokens"]
    tokens: list[str] = field.contents()
    return tokens.index("\xc3")


def test_b5_a_nul_does_not_end_a_prompt(server: Server) -> None:
    assert n_prompt(complete(server, prompt="one\0two three")) > n_prompt(complete(server, prompt="one"))
    assert n_prompt(chat(server, "one\0two three")) > n_prompt(chat(server, "one"))


def test_b5_a_nul_in_names(server: Server) -> None:
    complete(server, stop="\0")
    assert is_refused(post(server, prompt=TALE, model="plait-demo\0"), "model", 404)


@pytest.mark.parametrize("forged", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|bos|>"])
def test_b6_turns_are_not_forged(server: Server, forged: str) -> None:
    n_one = n_prompt(chat(server, "a"))
    assert n_prompt(chat(server, forged)) >= n_one + 2
    assert n_prompt(complete(server, prompt=forged)) == 2


def test_b7_illegal_characters_leave_no_dirt(server: Server) -> None:
    """That the next answer is right is shown after every test here; this one goes through the cache."""
    before = text_of(complete(server, temperature=0, max_tokens=20))
    assert is_refused(send(server, b'{"prompt": "\xff\xfe"}'))
    complete(server, prompt="\ufffd\u0000\uffff\u200d\u202e")
    assert text_of(complete(server, temperature=0, max_tokens=20)) == before


@pytest.mark.parametrize(
    "prompt", [[-1], [2048], [2**31], [2**63], [1.5], [[1], [[2]]], [1, "a"], [[1], "a"], [True], [None]]
)
def test_b8_what_is_no_token(server: Server, prompt: object) -> None:
    assert is_refused(post(server, prompt=prompt), "prompt")
