"""What a workload is: who asks what of a server, what is measured, and what Plait must reach."""

import statistics
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from benchmarks.client import Answer, Client
from benchmarks.rivals.base import Rival, Server, Setup

Result = TypeVar("Result")


@dataclass(frozen=True)
class Size:
    """How much work, in tokens; each workload makes its own of it."""

    prompt: int = 100
    output: int = 64
    system: int = 1000
    long: int = 3000
    n_long: int = 2
    turns: int = 6


FULL = Size()
QUICK = Size(prompt=12, output=12, system=64, long=200, turns=2)
"""To see that all works; the figures mean nothing."""


class Figure(NamedTuple):
    """One thing that one run measured."""

    name: str
    value: float
    unit: str


Of = Literal["best", "same slots", "kernels", ""]
"""Of what a goal is a ratio: the rival's best setting, that with Plait's slots, what kernels can do, or of nothing."""


class Goal(NamedTuple):
    """What Plait's figure, divided by the other's, must be."""

    figure: str
    of: Of
    sign: Literal[">=", "<="]
    bound: float


class Phase(NamedTuple):
    """The streams, in groups of neighbours, read a prompt that each group shares; then all of them write."""

    n_groups: int
    n_prompt: int
    n_output: int = 0


class Load(NamedTuple):
    """A workload's work for a bare loop over `llama_decode`: nothing is computed twice, and nobody waits."""

    n_streams: int
    phases: tuple[Phase, ...]

    @property
    def n_held(self) -> int:
        """Tokens of each stream in the end."""
        return sum(phase.n_prompt + phase.n_output for phase in self.phases)

    @property
    def n_output(self) -> int:
        """Tokens that are written in all."""
        return self.n_streams * sum(phase.n_output for phase in self.phases)


class Try(NamedTuple):
    """A setting of llama-server that may be its best for a workload. 0 slots: as many as Plait has."""

    label: str
    n_slots: int = 0
    is_unified: bool = False
    n_batch: int = 0
    has_host_cache: bool = True
    is_greedy: bool = False
    asks_n: bool = True


class Stage:
    """One server on which a workload runs again and again. Owns the running server."""

    def __init__(self, rival: Rival, setup: Setup, client: Client, *, asks_n: bool, patience: float) -> None:
        """`asks_n=False`: many answers to one prompt are many requests. `patience`: seconds that a run may take."""
        self.rival = rival
        self.setup = setup
        self.client = client
        self.asks_n = asks_n
        self.patience = patience
        self.running = ExitStack()
        self.server: Server = self.running.enter_context(rival.start(setup))

    def run(self, work: Coroutine[object, object, Result]) -> Result:
        """On the client. Raises `TimeoutError` when patience is at its end."""
        return self.client.run(work, self.patience)

    def restart(self) -> None:
        self.close()
        self.server = self.running.enter_context(self.rival.start(self.setup))

    def close(self) -> None:
        self.running.close()


@dataclass(frozen=True)
class Workload:
    """Who does what. `figure` is the name of the one that is plotted, and by which settings are chosen."""

    name: str
    title: str
    n_slots: int
    n_ctx: Callable[[Size], int]
    run: Callable[[Stage, Size, int], list[Figure]]
    """On a stage, the so-manieth time: other prompts each time, the same ones for every server."""
    goals: tuple[Goal, ...]
    figure: str = "tokens/s"
    tries: tuple[Try, ...] = ()
    """The likeliest to be the best is the first."""
    weight: float = 1.0
    """About how long it takes, beside the others."""
    wants_patience: bool = False
    """Whether Plait may do better when nobody minds waiting for a token."""
    has_slow_rivals: bool = False
    """Whether those take part that serve one request at a time."""
    has_host_cache: bool = True
    """Whether servers may keep of prompts what no slot holds, in RAM."""
    load: Callable[[Size], Load] | None = None
    is_better_high: bool = True


def throughput(answers: Sequence[Answer]) -> list[Figure]:
    """From the first request sent to the last answer ended."""
    begin, end = min(answer.sent for answer in answers), max(answer.ended for answer in answers)
    rate = sum(answer.n_output for answer in answers) / (end - begin)
    return [Figure("tokens/s", rate, "tokens/s"), *first_tokens(answers), *failures(answers)]


def first_tokens(answers: Sequence[Answer]) -> list[Figure]:
    spoken = [answer.first_token for answer in answers if answer.times]
    return [Figure("first token, median", statistics.median(spoken), "s")] if spoken else []


def failures(answers: Sequence[Answer]) -> list[Figure]:
    """Told only when there are some."""
    n_failed = sum(not answer.is_whole for answer in answers)
    return [Figure("failed answers", n_failed / len(answers), "share")] if n_failed else []
