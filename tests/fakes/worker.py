"""A worker without a model: a real process that speaks the protocol, whose prompts say how it should behave.

`python -m tests.fakes.worker STEP_SECONDS FD`. The first word of a raw prompt is a verb:

    echo WORDS      says these words, one a step
    count           says numbers until `max_tokens`
    hang            begins, says one word, and no more
    gate PATH       says one word, and ends when there is a file of that name
    shy             counts as `count` does, and stays in the queue while the worker has other requests
    dumb            says one word, and dies by SIGKILL; says nothing when it is to go on from there
    silent          says nothing at all
    refuse          fails, as a prompt does that is too long
    crash           begins, says one word, and dies by SIGKILL
    creep           counts as `count` does, and dies by SIGKILL after each number
    mortal PATH AT  counts as `count` does, and dies by SIGKILL at the number AT, unless PATH exists; then makes PATH
    freeze PATH     counts as `count` does, and stops itself by SIGSTOP at the number 1, unless PATH exists; makes PATH
    stall           begins, says one word, and stops itself by SIGSTOP
    haunt PATH      counts as `count` does, and ends in silence at the number 1, but for a child that holds its socket
                    until the other end is closed, unless PATH exists; makes PATH
    garbage         sends a frame that no protocol knows
    stranger        speaks for a choice that nobody asked for

A prompt's tokens are its letters' codes, and an answer's are the words' numbers, so that another worker of this kind
can go on with what is known.

A model whose file's name begins with "bad" is refused, with "deadly" it kills the worker, with "endless" it is never
loaded.
"""

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from plait import protocol, wire
from plait.config import Engine
from plait.protocol import (
    Cached,
    Cancel,
    ChatPrompt,
    Done,
    Event,
    Failed,
    Forget,
    Generate,
    Load,
    ModelInfo,
    Order,
    Prompt,
    Queued,
    RawPrompt,
    Ready,
    Started,
    Stats,
    Text,
    TokenPrompt,
)

PULSE_SECONDS = 1.0
STEP_SECONDS, STEP_ROWS = 0.2, 64
"""What it says that a step takes: ten of them are longer than its silence when nothing runs."""
N_SLOTS = 4
FORGOTTEN = 1
"""Cells that it says it holds once it has been told to empty its cache; before, none."""

INFO = ModelInfo(
    description="fake",
    n_params=1,
    model_bytes=1,
    kv_bytes=1,
    n_vocab=3,
    n_ctx=4096,
    n_ctx_train=4096,
    n_slots=N_SLOTS,
    kv_layout="split",
    has_chat_template=False,
    n_threads=1,
    load_seconds=0.0,
)


def command(step_seconds: float = 0.002) -> tuple[str, ...]:
    """What runs such a worker, for a `Launcher`."""
    return (sys.executable, "-m", "tests.fakes.worker", str(step_seconds))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class FakeWorker:
    """Owns the requests that it pretends to work on: each is an iterator that makes one step's events."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.running: dict[int, Iterator[list[Event]]] = {}
        self.n_requests = self.n_cancelled = self.n_steps = 0
        self.n_cells = 0

    def obey(self, order: Order) -> None:
        match order:
            case Load(path=path, engine=engine):
                self.load(Path(path).name, engine)
            case Generate(id=id):
                self.n_requests += 1
                self.running[id] = script(order, self)
            case Cancel(id=id):
                self.n_cancelled += self.running.pop(id, None) is not None
            case Forget():
                self.n_cells = FORGOTTEN
        self.pulse()

    def load(self, name: str, engine: Engine) -> None:
        if name.startswith("deadly"):
            die()
        if name.startswith("endless"):
            return
        ready = Ready(structs.replace(INFO, cache_ram=engine.cache_ram))
        refusal = Failed(0, "model_load_failed", f"{name} is no model")
        self.send([refusal if name.startswith("bad") else ready])

    def step(self) -> None:
        """One step of all that run, told in one frame."""
        events: list[Event] = []
        for id, steps in list(self.running.items()):
            said = next(steps, None)
            if said is None:
                del self.running[id]
            else:
                events += said
        self.n_steps += 1
        if events:
            self.send(events)

    def pulse(self) -> None:
        stats = Stats(
            n_slots=N_SLOTS,
            n_reading=0,
            n_writing=len(self.running),
            n_waiting=0,
            n_cells=self.n_cells,
            n_cells_max=4096,
            prompt_tokens_total=self.n_requests,
            cached_tokens_total=Cached(),
            output_tokens_total=self.n_steps,
            requests_total=self.n_requests,
            cancelled_total=self.n_cancelled,
            steps_total=self.n_steps,
            step_seconds=[STEP_SECONDS],
            step_rows=[STEP_ROWS],
        )
        self.send([stats])

    def send(self, events: list[Event]) -> None:
        self.writer.write(wire.pack(protocol.encode(events)))


def script(order: Generate, worker: FakeWorker) -> Iterator[list[Event]]:
    """What a request gets, step by step."""
    id, request = order.id, order.request
    text = prompt_text(request.prompt)
    verb, *words = text.split()
    known = order.known or ((),) * request.n
    choices = [choice for choice in range(request.n) if known[choice] is not None]
    n_known = max(len(known[choice] or ()) for choice in choices)
    if verb == "refuse":
        yield [Failed(id, "context_length_exceeded", "the prompt has 9 tokens, the context 8", "prompt")]
        return
    if verb == "garbage":
        worker.writer.write(wire.pack(b"\x93\xc1"))
    if verb == "shy":
        yield [Queued(id)]
    while verb in ("silent", "garbage") or (verb == "shy" and len(worker.running) > 1):
        yield []
    yield [Started(id, [ord(letter) for letter in text], Cached(idle=1))]
    if verb == "stranger":
        yield [Text(id, request.n, "boo", [1])]
    fate = Fate(verb, words, worker)
    if verb in COUNTING:
        words = [str(n) for n in range(request.max_tokens or 10)]
    gate = Path(*words) if verb == "gate" else None
    for n, word in list(enumerate(words or ["so"]))[n_known:]:
        fate.meet(n)
        yield [Text(id, choice, f"{word} ", [n]) for choice in choices]
        if verb == "creep":
            die()
    while verb == "dumb" and n_known:
        yield []
    if verb in FATAL:
        os.kill(os.getpid(), FATAL[verb])
    while verb == "hang" or (gate and not gate.exists()):
        yield []
    yield [Done(id, choice, "stop", 3, len(words), 0.01, 0.02) for choice in choices]


COUNTING = ("count", "creep", "shy", "mortal", "freeze", "haunt")
FATAL = {"crash": signal.SIGKILL, "dumb": signal.SIGKILL, "stall": signal.SIGSTOP}


class Fate:
    """What becomes of a worker at a certain number, the first time."""

    def __init__(self, verb: str, words: list[str], worker: FakeWorker) -> None:
        self.path = Path(words[0]) if verb in ("mortal", "freeze", "haunt") else None
        self.number = int(words[1]) if verb == "mortal" else 1
        self.signal = signal.SIGSTOP if verb == "freeze" else signal.SIGKILL
        self.ghost = worker.writer.get_extra_info("socket").fileno() if verb == "haunt" else None

    def meet(self, number: int) -> None:
        if self.path and number == self.number and not self.path.exists():
            self.path.touch()
            if self.ghost is not None:
                haunt(self.ghost)
            os.kill(os.getpid(), self.signal)


def haunt(fd: int) -> None:
    if os.fork():
        os._exit(0)
    while select.select([fd], [], []) and os.read(fd, 65536):
        pass
    os._exit(0)


def prompt_text(prompt: Prompt) -> str:
    match prompt:
        case RawPrompt(text):
            return text
        case TokenPrompt(tokens):
            return "".join(map(chr, tokens))
        case ChatPrompt(messages=messages):
            return messages[-1].content


async def main(step_seconds: float, fd: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
    worker = FakeWorker(writer)
    beating = asyncio.create_task(beat(worker, step_seconds))
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            for order in protocol.decode_orders(await wire.read(reader)):
                worker.obey(order)
    beating.cancel()


async def beat(worker: FakeWorker, step_seconds: float) -> None:
    """Steps while there is work, and a pulse now and then."""
    last = 0.0
    while True:
        worker.step()
        now = asyncio.get_running_loop().time()
        if now - last > PULSE_SECONDS:
            last = now
            worker.pulse()
        await worker.writer.drain()
        await asyncio.sleep(step_seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
