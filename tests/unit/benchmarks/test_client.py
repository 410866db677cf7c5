"""What a benchmark's client makes of the bytes that it read."""

import itertools
import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.client import Answer, Ask, Client, parse, stream

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
WORDS = [" w1", " w20 w3", "", " w4"]


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def said(*texts: str) -> list[bytes]:
    """A whole answer, a piece for each text."""
    events = [event({"choices": [{"text": text, "index": 0}]}) for text in texts]
    return [HEAD, *map(chunk, events), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def heard(pieces: list[bytes], max_tokens: int = 4) -> Answer:
    answer = Answer(Ask("w0", max_tokens))
    parse(answer, [(float(at), data) for at, data in enumerate(pieces)])
    return answer


def test_each_word_is_a_token_at_the_time_at_which_its_event_was_whole() -> None:
    answer = heard(said(*WORDS))
    assert answer.text == " w1 w20 w3 w4"
    assert answer.times == [1.0, 2.0, 2.0, 4.0]
    assert answer.is_whole


@given(st.lists(st.integers(0, 400), max_size=6))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    everything = b"".join(said(*WORDS))
    ends = [0, *sorted(min(cut, len(everything)) for cut in cuts), len(everything)]
    pieces = [everything[a:b] for a, b in itertools.pairwise(ends) if a < b]
    assert heard(pieces).text == " w1 w20 w3 w4"


def test_an_answer_that_breaks_off_is_not_whole() -> None:
    assert not heard(said(*WORDS)[:-2]).is_whole


def test_an_error_in_the_stream_is_told() -> None:
    answer = heard([HEAD, chunk(event({"error": {"message": "no room"}}))])
    assert "no room" in answer.error
    assert not answer.is_whole


def test_a_refusal_is_told_with_its_status() -> None:
    answer = heard([b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno"])
    assert answer.error == "status 429: no"


def answering(*pieces: bytes, then_waits: bool = False) -> tuple[socket.socket, threading.Thread, list[bytes]]:
    """A server of one connection, and what it reads after its answer: nothing when the client has left."""
    server, left = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"".join(pieces))
            if then_waits:
                left.append(connection.recv(1))

    thread = threading.Thread(target=serve)
    thread.start()
    return server, thread, left


def test_an_answer_is_read_to_its_end() -> None:
    server, thread, _ = answering(*said(*WORDS))
    with server:
        answer = Client().run(stream(server.getsockname(), Ask("w0", 4)))
    thread.join()
    assert answer.is_whole
    assert answer.sent < answer.times[0] <= answer.ended


def test_who_leaves_hangs_up_at_once() -> None:
    server, thread, left = answering(*said(*WORDS)[:2], then_waits=True)
    with server:
        answer = Client().run(stream(server.getsockname(), Ask("w0", 4), lambda n: n >= 1))
    thread.join()
    assert left == [b""]
    assert answer.text == " w1"


def test_nobody_there_is_a_failed_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    assert "Connect" in Client().run(stream(address, Ask("w0", 4))).error


def test_what_takes_too_long_is_given_up() -> None:
    server, thread, left = answering(then_waits=True)
    with server, pytest.raises(TimeoutError):
        Client().run(stream(server.getsockname(), Ask("w0", 4)), 0.05)
    thread.join()
    assert left == [b""]
