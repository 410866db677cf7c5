"""The check table of server-parallel, row by row, against running servers. Nothing depends on what a model says."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import httpx2
import msgspec
import pytest

from plait.dialects.server_parallel_state import SYSTEM_PROMPT
from tests.dialects.server_parallel.asking import ENDLESS, GREEDY, N_PREDICT, OWN, SWITCH, Client, contents
from tests.waiting import until

HELLO = " Hello\nAssistant:"


def said(lines: Iterator[str]) -> str:
    """The next event's line."""
    return next(filter(None, lines))


def content(line: str) -> str:
    """What an event's line says."""
    said: dict[str, str] = msgspec.json.decode(line.removeprefix("data: "))
    return said["content"]


def test_3_1_props_are_two_names_in_compact_json(demo: Client) -> None:
    demo.complete(**OWN)
    response = demo.http.get("/props")
    assert response.content == b'{"assistant_name":"Assistant:","user_name":"User:"}'
    assert response.headers["content-type"] == "application/json"


def test_3_2_a_completion_is_one_event_a_token_and_nothing_after(demo: Client) -> None:
    first, again = (demo.complete(prompt=HELLO, **OWN, **GREEDY) for _ in range(2))
    assert first.headers["content-type"] == "text/event-stream"
    assert first.headers["transfer-encoding"] == "chunked"
    assert contents(first) and first.content == again.content


def test_3_2_every_event_is_its_own_chunk(demo: Client) -> None:
    body = b'{"prompt":" Hello","temperature":0}'
    head = b"POST /completion HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with socket.create_connection(("127.0.0.1", int(demo.server.url.rpartition(":")[2]))) as connection:
        connection.sendall(head + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    rest, chunks = answer.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    assert chunks
    assert all(chunk.startswith(b'data: {"content":"') and chunk.endswith(b',"slot_id":0}\n\n') for chunk in chunks)


def test_3_4_a_switch_ends_the_others_and_lasts(talker: Client) -> None:
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(talker.streaming(prompt=HELLO)) for _ in range(2)]
        assert all(said(stream) for stream in lines)
        with talker.streaming(prompt=HELLO, **SWITCH) as switched:
            assert said(switched)
            assert talker.names() == {"assistant_name": "Nurse:", "user_name": "Patient:"}
            assert all(len(list(filter(None, stream))) < ENDLESS // 2 for stream in lines)
    assert talker.names()["user_name"] == "Patient:"
    with talker.streaming(prompt=HELLO, **OWN) as back:
        assert said(back)
    assert talker.names()["user_name"] == "User:"


def test_3_4_without_all_three_fields_nothing_is_switched(demo: Client) -> None:
    before = demo.names()
    contents(demo.complete(prompt=HELLO, system_prompt="Nobody.", anti_prompt="Nobody:", **GREEDY))
    assert demo.names() == before


def test_3_5_two_write_at_the_same_time_and_the_third_is_sent_away(talker: Client) -> None:
    with talker.streaming(prompt=HELLO) as one, talker.streaming(prompt=" Hi") as two:
        for _ in range(10):
            assert '"slot_id":0}' in said(one)
            assert '"slot_id":1}' in said(two)
        third = talker.complete(prompt=HELLO)
        assert (third.status_code, third.text) == (404, "slot_error")
        assert third.headers["content-type"] == "text/plain"


def test_3_6_with_continuous_batching_a_newcomer_joins_those_who_write(talker: Client) -> None:
    with talker.streaming(prompt=HELLO) as one:
        assert said(one)
        with talker.streaming(prompt=HELLO) as two:
            assert said(two)
            assert said(one)


def test_3_6_without_it_a_newcomer_waits_until_nobody_writes(waiter: Client) -> None:
    def begin() -> str:
        with waiter.streaming(prompt=" 2") as two:
            return said(two)

    with ThreadPoolExecutor() as pool:
        with waiter.streaming(prompt=" 1") as one:
            assert said(one)
            other = pool.submit(begin)
            until(lambda: waiter.server.metric("plait_queue") == 1)
            assert said(one)
            assert not other.done()
        assert other.result()


def test_3_7_the_antiprompt_is_sent_with_what_completes_it(talker: Client) -> None:
    with talker.streaming(prompt=HELLO, **OWN, **GREEDY) as lines:
        pieces = [content(said(lines)) for _ in range(12)]
    for stop in ("".join(pieces[4:9]), pieces[2]):
        expected = next(pieces[:n] for n in range(4, 12) if stop in "".join(pieces[:n]))
        assert contents(talker.complete(prompt=HELLO, **OWN | {"anti_prompt": stop}, **GREEDY)) == expected


def test_3_8_n_predict_bounds_prompt_and_answer_but_not_the_system_prompt(limited: Client) -> None:
    n_prompt = limited.n_tokens(SYSTEM_PROMPT + HELLO) - limited.n_tokens(SYSTEM_PROMPT)
    assert n_prompt + len(contents(limited.complete(prompt=HELLO, **GREEDY))) - 1 == N_PREDICT


def test_3_9_a_slot_can_be_asked_for(demo: Client) -> None:
    assert b'"slot_id":1}' in demo.complete(prompt=HELLO, slot_id=1).content
    for unknown in (2, -2):
        assert demo.complete(prompt=HELLO, slot_id=unknown).text == "slot_error"


def test_3_9_a_slot_that_is_taken_is_an_error(talker: Client) -> None:
    with talker.streaming(prompt=HELLO, slot_id=1, temperature=0) as lines:
        assert said(lines)
        assert talker.complete(prompt=HELLO, slot_id=1).text == "slot_error"


def test_3_10_a_page_a_script_and_the_files_of_a_folder(demo: Client) -> None:
    page, script = demo.http.get("/"), demo.http.get("/index.js")
    assert page.headers["content-type"].startswith("text/html") and "index.js" in page.text
    assert "completion" in script.text
    assert demo.http.get("/sub/page.html").text == "<p>ours</p>"
    assert demo.http.get("/metrics").status_code == demo.http.get("/openai/v1/models").status_code == 200


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/sub/../../secret.txt", "/%00", "//etc/passwd"]
)
def test_3_10_nothing_outside_the_folder_is_shown(demo: Client, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(demo.server.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")) and b"secret" not in answer


def assert_open(preflight: httpx2.Response) -> None:
    assert (preflight.status_code, preflight.content) == (200, b"")
    wanted = {"origin": "*", "methods": "*", "headers": "content-type"}
    assert {name: preflight.headers[f"access-control-allow-{name}"] for name in wanted} == wanted


@pytest.mark.parametrize("path", ["/", "/props", "/nix", "/nix/nix"])
def test_3_12_options_are_told_of_every_path(limited: Client, path: str) -> None:
    """Of those that are not there, too; `limited` has no folder of files."""
    assert_open(limited.http.request("OPTIONS", path))
    if "nix" in path:
        for absent in (limited.http.get(path), limited.http.post(path)):
            assert (absent.status_code, absent.content) == (404, b"")


def test_3_12_pages_of_every_origin_may_ask(demo: Client) -> None:
    assert_open(demo.http.request("OPTIONS", "/completion"))
    assert demo.http.get("/props").headers["access-control-allow-origin"] == "*"


BAD = [
    (b"", "parse_error"),
    (b'{"prompt": "x"', "parse_error"),
    (b"[]", "parse_error"),
    (b"\xff", "parse_error"),
    (b'{"prompt": 7}', "type_error"),
    (b'{"prompt": null}', "type_error"),
    (b'{"temperature": "hot"}', "type_error"),
    (b'{"slot_id": 0.5}', "type_error"),
    (b'{"system_prompt": "x", "anti_prompt": "", "assistant_name": "A:"}', "type_error"),
]


@pytest.mark.parametrize(("body", "kind"), BAD, ids=[body.decode("latin-1") for body, _ in BAD])
def test_3_13_what_is_wrong_stands_in_a_header(demo: Client, body: bytes, kind: str) -> None:
    response = demo.http.post("/completion", content=body)
    assert (response.status_code, response.content) == (500, b"")
    assert response.headers["EXCEPTION_WHAT"].startswith(f"[json.exception.{kind}")


def test_3_13_other_paths_are_not_found_and_say_nothing(demo: Client) -> None:
    answers = [demo.http.get("/nix"), demo.http.post("/nix"), demo.http.get("/completion"), demo.http.post("/props")]
    assert [(answer.status_code, answer.content) for answer in answers] == [(404, b"")] * 4


def test_3_14_hanging_up_frees_the_slot(talker: Client) -> None:
    for _ in range(3):
        with talker.streaming(prompt=HELLO, slot_id=0) as lines:
            assert list(islice(lines, 3))
        talker.when_quiet()
    with talker.streaming(prompt=HELLO, slot_id=0) as lines:
        assert said(lines)


def test_3_14_hanging_up_before_the_first_token_frees_it_too(waiter: Client) -> None:
    body = b'{"slot_id":1}'
    head = b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with waiter.streaming(prompt=HELLO) as lines:
        with socket.create_connection(("127.0.0.1", int(waiter.server.url.rpartition(":")[2]))) as waiting:
            waiting.sendall(head + body)
            until(lambda: waiter.server.metric("plait_queue") == 1)
        assert said(lines)
    with waiter.when_quiet().streaming(slot_id=1) as lines:
        assert said(lines)


def test_a_prompt_longer_than_a_batch_is_read(limited: Client, talker: Client) -> None:
    with talker.streaming(prompt=" word" * 600) as lines:
        assert said(lines)
    assert contents(limited.complete(prompt=" word" * 30, **GREEDY))


def test_a_prompt_longer_than_the_context_is_refused_in_words(demo: Client) -> None:
    response = demo.complete(prompt=" word" * 3000)
    assert response.status_code == 400
    assert "2048" in response.text


def test_a_system_prompt_longer_than_the_context_changes_nothing(demo: Client) -> None:
    before = demo.names()
    assert demo.complete(**SWITCH | {"system_prompt": "word " * 3000}).status_code == 400
    assert demo.names() == before
    assert contents(demo.complete(prompt=HELLO, **GREEDY))


def test_the_same_is_served_under_its_prefix(demo: Client) -> None:
    assert demo.http.get("/server-parallel/props").json() == demo.names()
    response = demo.http.post("/server-parallel/completion", content=b'{"prompt":" Hello"}')
    assert contents(response)


def test_the_system_prompt_is_computed_once(talker: Client) -> None:
    n_before = talker.server.metric("plait_prompt_tokens_total")
    with talker.streaming(prompt=" 1", **OWN | {"system_prompt": "A long talk. " * 100}) as one:
        assert said(one)
        with talker.streaming(prompt=" 2") as two:
            assert said(two)
    n_long = talker.n_tokens("A long talk. " * 100)
    assert talker.when_quiet().server.metric("plait_prompt_tokens_total") - n_before < 2 * n_long
