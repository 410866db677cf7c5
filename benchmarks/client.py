"""The load: streamed requests to /v1/completions, as many at once as asked, from one thread that yields to the servers.

While answers come, what is read is only noted with its time; it is taken apart when all is over. A `Client` owns its
thread, on which the coroutines given to `run` live.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar, cast

import httptools
import msgspec
import uvloop

NICENESS = 5
"""How far the client steps back: the cores are the servers'."""
SILENCE = 600.0
"""Seconds without a byte after which an answer counts as failed."""

Result = TypeVar("Result")


class Ask(msgspec.Struct, frozen=True):
    """One request for `n` answers of so many tokens each."""

    prompt: str
    max_tokens: int
    n: int = 1


class _Choice(msgspec.Struct):
    text: str | None = ""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: msgspec.Raw = msgspec.Raw()


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


@dataclass
class Answer:
    """What one request got. Times are `time.perf_counter`'s."""

    ask: Ask
    sent: float = 0.0
    ended: float = 0.0
    status: int = 0
    times: list[float] = field(default_factory=list)
    """When each token came."""
    text: str = ""
    error: str = ""

    @property
    def n_output(self) -> int:
        """Counted by words, as servers count those of `n` answers differently."""
        return len(self.times)

    @property
    def first_token(self) -> float:
        """Seconds."""
        return self.times[0] - self.sent if self.times else float("inf")

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and not self.error and self.n_output == self.ask.max_tokens * self.ask.n


class _Parser:
    """Takes one HTTP answer apart, with the time at which each event was complete."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.now = 0.0
        self.pending = b""
        self.parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes, now: float) -> None:
        self.now = now
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.answer.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        *events, self.pending = (self.pending + body).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            if event.startswith(b"data: ") and event != b"data: [DONE]":
                self.hear(event[6:])

    def hear(self, data: bytes) -> None:
        answer, chunk = self.answer, _decode_chunk(data)
        if chunk.error:
            answer.error = bytes(chunk.error).decode()
        if text := "".join(choice.text or "" for choice in chunk.choices):
            answer.times += [self.now] * len(text.split())
            answer.text += text


def parse(answer: Answer, pieces: list[tuple[float, bytes]]) -> None:
    """What was read, and when, into `answer`. Each token of our models is a word."""
    parser = _Parser(answer)
    try:
        for now, data in pieces:
            parser.feed(data, now)
    except httptools.HttpParserError as error:
        answer.error = f"not HTTP: {error}"
    if answer.status != 200 and not answer.error:
        answer.error = f"status {answer.status}: {parser.pending[:200].decode(errors='replace')}"


def request(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return head.encode() + f"content-length: {len(content)}\r\n\r\n".encode() + content


def completion(ask: Ask) -> bytes:
    """The same for every server: greedy, to the last token."""
    body = {"prompt": ask.prompt, "max_tokens": ask.max_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return request("/v1/completions", body | ({"n": ask.n} if ask.n > 1 else {}))


def stays(n_chunks: int) -> bool:
    """The patient client's `leaves`."""
    return False


class _Reading(asyncio.Protocol):
    """One request, and what is read of its answer. `over` is done when the connection is closed."""

    def __init__(self, content: bytes, leaves: Callable[[int], bool]) -> None:
        self.content = content
        self.leaves = leaves
        self.loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.pieces: list[tuple[float, bytes]] = []
        self.heard = self.loop.time()
        self.n_chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.transport.write(self.content)
        self.watchdog = self.loop.call_later(SILENCE, self.watch)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))
        self.heard = self.loop.time()
        self.n_chunks += data.count(b'"text":')
        if self.leaves(self.n_chunks):
            self.transport.close()

    def watch(self) -> None:
        """Looks now and then instead of being wound up again by each byte."""
        left = self.heard + SILENCE - self.loop.time()
        if left > 0:
            self.watchdog = self.loop.call_later(left, self.watch)
        else:
            self.end(TimeoutError(f"silent for {SILENCE:.0f} s"))
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.watchdog.cancel()
        self.end(error)

    def end(self, error: Exception | None) -> None:
        if self.over.done():
            return
        if error:
            self.over.set_exception(error)
        else:
            self.over.set_result(None)


async def stream(address: tuple[str, int], ask: Ask, leaves: Callable[[int], bool] = stays) -> Answer:
    """One request on a connection of its own. `leaves` is told the number of chunks so far; if it says so, we hang
    up."""
    answer = Answer(ask, sent=time.perf_counter())
    reading = _Reading(completion(ask), leaves)
    try:
        transport, _ = await reading.loop.create_connection(lambda: reading, *address)
        try:
            await reading.over
        finally:
            transport.abort()  # does nothing to one that is closed
    except OSError as error:
        answer.error = repr(error)
    answer.ended = time.perf_counter()
    parse(answer, reading.pieces)
    return answer


async def stream_all(address: tuple[str, int], asks: list[Ask]) -> list[Answer]:
    """All at once."""
    return await asyncio.gather(*(stream(address, ask) for ask in asks))


class Client:
    """A thread at lower priority than the servers that are started from other threads."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self._live, name="client", daemon=True)
        self.thread.start()

    def _live(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        self.loop.run_forever()

    def run(self, work: Coroutine[object, object, Result], seconds: float | None = None) -> Result:
        """Raises `TimeoutError` when it takes longer than so many seconds, and is given up then."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self.loop).result()
