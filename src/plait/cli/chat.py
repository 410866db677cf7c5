"""`plait chat`: a conversation in the terminal, with a fleet of its own and without HTTP.

The fleet's event loop runs in a thread beside; this one waits for what is typed and for Ctrl-C, which leaves an
answer's loop and so cancels it. Owns the conversation; what a turn looks like to the model, its template knows.
"""

import readline
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager

import click
from anyio import CancelScope
from anyio.from_thread import BlockingPortal, start_blocking_portal
from msgspec import structs

from plait.cli.fetching import fetch
from plait.cli.options import SettingsCommand
from plait.config import Config
from plait.errors import PlaitError
from plait.fleet.base import Fleet
from plait.fleet.local import LocalFleet
from plait.protocol import ChatMessage, ChatPrompt, Done, Request, Sampling, Text

HELP = "/clear forgets the conversation, /system TEXT sets the system prompt, /exit ends; Ctrl-C stops an answer"


def run(config: Config, system: str, temp: float | None, seed: int | None, max_tokens: int | None) -> None:
    """Talks until /exit, or the end of what is typed."""
    models = config.models.model[:1]
    fetch(models, config)
    config = structs.replace(
        config,
        models=structs.replace(config.models, model=models),
        engine=structs.replace(config.engine, slots=config.engine.slots or 1),
    )
    sampling = Sampling(seed=seed) if temp is None else Sampling(seed=seed, temperature=temp)
    readline.set_auto_history(True)
    with start_blocking_portal() as portal, _started(portal, LocalFleet(config)) as fleet:
        chat = Chat(portal, fleet, system, sampling, max_tokens)
        for line in _lines(portal.call(fleet.models)[0].name):
            if line == "/exit":
                return
            chat.hear(line)


@contextmanager
def _started(portal: BlockingPortal, fleet: LocalFleet) -> Iterator[Fleet]:
    try:
        portal.call(fleet.start)
        yield fleet
    finally:
        portal.call(fleet.close)


def _lines(name: str) -> Iterator[str]:
    """What is typed, or what is piped in; empty lines are nothing."""
    is_watched = sys.stdin.isatty()
    if is_watched:
        click.echo(f"{name}. {HELP}.")
    while True:
        try:
            line = input("\n> " if is_watched else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line:
            yield line


class Chat:
    """A conversation: what was said, and what comes next."""

    def __init__(
        self, portal: BlockingPortal, fleet: Fleet, system: str, sampling: Sampling, max_tokens: int | None
    ) -> None:
        self.portal = portal
        self.fleet = fleet
        self.system = system
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.turns: list[ChatMessage] = []

    def hear(self, line: str) -> None:
        """A command, or a question."""
        match line.partition(" "):
            case ("/clear", _, ""):
                self.turns.clear()
            case ("/system", _, text):
                self.system = text.strip()
            case (word, _, _) if word.startswith("/"):
                click.echo(HELP)
            case _:
                self.answer(line)

    def answer(self, question: str) -> None:
        """Writes the answer as it comes. What was stopped is remembered as far as it came; what failed is not."""
        said: list[str] = []
        asked = ChatMessage("user", question)
        writing = self.portal.call(CancelScope)
        written = self.portal.start_task_soon(self._write, [*self.turns, asked], said, writing)
        try:
            _wait(written, lambda: self.portal.call(writing.cancel))
        except PlaitError as error:
            click.echo(f"plait: {error}", err=True)
            return
        click.echo()
        self.turns += [asked, ChatMessage("assistant", "".join(said))]

    async def _write(self, turns: list[ChatMessage], said: list[str], writing: CancelScope) -> None:
        system = [ChatMessage("system", self.system)] if self.system else []
        request = Request(prompt=ChatPrompt([*system, *turns]), sampling=self.sampling, max_tokens=self.max_tokens)
        with writing:
            async with aclosing(self.fleet.generate(None, request)) as events:
                async for event in events:
                    if isinstance(event, Text | Done):
                        said.append(event.text)
                        click.echo(event.text, nl=False)


def _wait(written: Future[None], cancel: Callable[[], object]) -> None:
    """Until the answer is written, or stopped by Ctrl-C."""
    try:
        written.result()
    except KeyboardInterrupt:
        cancel()
        written.result()


command = SettingsCommand(
    "chat",
    run,
    params=[
        click.Option(["--system"], default="", metavar="TEXT", help="what the model is told before the conversation"),
        click.Option(
            ["--temp"], type=click.FloatRange(0), metavar="N", help="temperature; 0: always the likeliest token"
        ),
        click.Option(
            ["--seed"], type=click.IntRange(0, 2**32 - 2), metavar="N", help="the same seed, the same answers"
        ),
        click.Option(["--max-tokens"], type=click.IntRange(1), metavar="N", help="longest answer"),
    ],
    help=f"""Talk to a model in the terminal; the first of -m, or the demo model.

    Reads one question a line, from the keyboard or from a pipe. {HELP}.""",
)
