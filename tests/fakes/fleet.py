"""A fleet without processes: what it answers is a script, and it writes down what it was asked.

A script makes the steps of one answer from its request: events to yield, errors to raise, `asyncio.Event`s to wait for.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from plait.errors import Conflict, ModelNotFound, PlaitError
from plait.fleet.base import Served
from plait.protocol import Answer, Cached, Done, ModelInfo, Reason, Request, Started, Text

Step = Answer | PlaitError | asyncio.Event
Script = Callable[[Request], Iterable[Step]]

INFO = ModelInfo(
    description="fake 1M F16",
    n_params=1_000_000,
    model_bytes=2_000_000,
    kv_bytes=4_000_000,
    n_vocab=2048,
    n_ctx=512,
    n_ctx_train=1024,
    n_slots=4,
    kv_layout="split",
    has_chat_template=True,
    n_threads=2,
    load_seconds=0.5,
    protections=("no network", "no writes", "no foreign files", "no programs", "no core dumps"),
)


def served(name: str) -> Served:
    """A model that is ready."""
    path = f"/models/{name}.gguf"
    return Served(name=name, path=path, created=1_700_000_000, state="ready", reason="", info=INFO, replicas=[])


def done(choice: int, n_output: int, reason: Reason = "stop", text: str = "") -> Done:
    """The end of a choice whose prompt is `started`'s."""
    return Done(0, choice, reason, 3, n_output, 0.01, 0.02, text)


def started() -> Started:
    """A prompt of three tokens, one of which was known."""
    return Started(0, [7, 8, 9], Cached(idle=1))


def say(*words: str, reason: Reason = "stop") -> Script:
    """Every choice says these words, one a step."""

    def script(request: Request) -> Iterator[Step]:
        yield started()
        for word in words:
            yield from (Text(0, choice, word, [5]) for choice in range(request.n))
        yield from (done(choice, len(words), reason) for choice in range(request.n))

    return script


def play(*steps: Step) -> Script:
    """These steps, whatever was asked."""
    return lambda request: steps


HELLO = say("Hello", " world")


class FakeFleet:
    """`n_running` counts the answers that have begun and are not closed yet."""

    def __init__(self, script: Script = HELLO, names: Iterable[str] = ("demo",)) -> None:
        self.script = script
        self.served = [served(name) for name in names]
        self.asked: list[tuple[str | None, Request]] = []
        self.n_running = 0
        self.n_forgotten = 0

    @property
    def request(self) -> Request:
        """The one request that was asked."""
        ((_, request),) = self.asked
        return request

    def models(self) -> list[Served]:
        return self.served

    async def generate(self, model: str | None, request: Request) -> AsyncGenerator[Answer, None]:
        if not any(model in (None, one.name) for one in self.served):
            raise ModelNotFound(f"no model {model}")
        self.asked.append((model, request))
        self.n_running += 1
        try:
            for step in self.script(request):
                if isinstance(step, PlaitError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.n_running -= 1

    async def load(self, source: str, name: str | None = None) -> Served:
        name = source if name is None else name
        self.served = [one for one in self.served if one.name != name or not one.was_refused]
        if any(one.name == name for one in self.served):
            raise Conflict(f"{name} is served already")
        self.served.append(served(name))
        return self.served[-1]

    def forget(self) -> None:
        self.n_forgotten += 1

    async def unload(self, name: str) -> None:
        if not any(one.name == name for one in self.served):
            raise ModelNotFound(f"no model {name}")
        self.served = [one for one in self.served if one.name != name]
