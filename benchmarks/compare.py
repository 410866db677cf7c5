"""Runs workloads on all contestants by turns, so that what drifts hits all alike, and keeps what each run measured."""

import http.client
import json
import math
import random
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.client import Client
from benchmarks.clock import Timer
from benchmarks.contestants import OUR_ROLES, RIVAL_ROLES, Contestant, Role
from benchmarks.kernels import Kernels
from benchmarks.rivals.base import NotThere
from benchmarks.rivals.plait import Plait, PortablePlait
from benchmarks.words import n_tokens, words
from benchmarks.workloads.base import Load, Size, Stage, Workload

PATIENCE = 60.0
"""Seconds that every turn may take, however little time there is."""
N_RESERVED = 2
"""Rounds of those who decide for which time is set aside before others get any."""
SLOWNESS = 4
"""How much longer than llama-server those take that serve one request at a time, as a guess."""
TROUBLE = (OSError, NotThere, KeyError, ValueError, http.client.HTTPException)
"""What a server may do to us: be gone, not start, not count, or answer nonsense."""


@dataclass
class Limit:
    """What a bare loop takes for a workload's work, on the kernels of `rival`."""

    rival: Plait
    seconds: dict[int, float] = field(default_factory=dict)
    """By round."""
    trouble: str = ""
    """Why there are none."""


@dataclass
class Measured:
    """A workload, its contestants with their figures, and the limits of the kernels."""

    workload: Workload
    size: Size
    contestants: list[Contestant]
    kernels_differ: bool = False
    """Plait's and llama-server's, as installed."""
    limit: Limit = field(default_factory=lambda: Limit(Plait()))
    portable_limit: Limit = field(default_factory=lambda: Limit(PortablePlait()))
    """On kernels like llama-server's; measured where these differ from Plait's."""

    def of_role(self, role: Role) -> Contestant | None:
        found = [each for each in self.contestants if each.role == role and each.values(self.workload.figure)]
        return found[0] if found else None

    def best_rival(self) -> Contestant | None:
        """llama-server at the setting that is best for this."""
        name = self.workload.figure
        found = [each for each in self.contestants if each.role in RIVAL_ROLES and each.values(name)]
        sign = -1 if self.workload.is_better_high else 1
        return min(found, key=lambda each: (each.has_failed, sign * each.median(name)), default=None)

    @property
    def load(self) -> Load | None:
        """What a bare loop has to do. None: there is none for this workload."""
        return self.workload.load(self.size) if self.workload.load else None

    def limits(self) -> list[Limit]:
        """Those that are measured for this workload."""
        if not self.load:
            return []
        return [self.limit, self.portable_limit] if self.kernels_differ else [self.limit]

    def limit_of(self, contestant: Contestant) -> Limit:
        """That of its kernels."""
        is_portable = self.kernels_differ and contestant.role in (*RIVAL_ROLES, "plait, portable")
        return self.portable_limit if is_portable else self.limit

    def rates(self, limit: Limit) -> dict[int, float]:
        """Tokens per second of a bare loop, by round."""
        load = self.load
        return {round: load.n_output / seconds for round, seconds in limit.seconds.items()} if load else {}

    def rate(self, limit: Limit) -> float:
        """Their median, or NaN."""
        rates = self.rates(limit)
        return statistics.median(rates.values()) if rates else math.nan


def compare(measured: Measured, model: Path, client: Client, timer: Timer, n_rounds: int) -> None:
    """One round of all for whom there is time, then rounds of those who decide as long as one more fits in."""
    with ExitStack() as stack:
        contest = Contest(measured, model, client, timer, stack)
        contest.first_round()
        for round in range(1, n_rounds):
            if not (takers := contest.affordable()):
                break
            contest.round(round, takers)


class Contest:
    """The servers of those who take part, and the bare loop: they run until `stack` is closed."""

    def __init__(self, measured: Measured, model: Path, client: Client, timer: Timer, stack: ExitStack) -> None:
        self.measured = measured
        self.client = client
        self.timer = timer
        self.stack = stack
        self.stages: dict[str, Stage] = {}
        self.cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.limits_seconds = 0.0
        self.loops: list[tuple[Limit, Kernels]] = []
        if load := measured.load:
            for limit in measured.limits():
                self.start_loop(limit, load, model)

    def start_loop(self, limit: Limit, load: Load, model: Path) -> None:
        try:
            variables = limit.rival.variables()
        except NotThere as reason:
            limit.trouble = str(reason)
        else:
            loop = self.stack.enter_context(Kernels(model, load, variables))
            loop.wait()
            self.loops.append((limit, loop))

    def first_round(self) -> None:
        """Of those who decide, whatever it takes; then of each of the others that fits in."""
        everybody = self.measured.contestants
        needed = [each for each in everybody if each.is_needed]
        began = self.timer.now()
        self.open(needed)
        start_seconds = (self.timer.now() - began) / len(needed)
        self.round(0, needed)
        reserved = self.reserved(needed)
        for each in everybody:
            if each.is_needed:
                continue
            if self.timer.allows(reserved + start_seconds + self.guess(each)):
                self.open([each])
                self.take_turns(0, [each])
            else:
                each.trouble = "not run: no time left"

    def reserved(self, needed: Sequence[Contestant]) -> float:
        """Seconds for more rounds of those who decide; none, if there is not that much time."""
        seconds = N_RESERVED * (self.limits_seconds + sum(each.seconds for each in needed if not each.is_gone))
        return seconds if self.timer.allows(seconds) else 0.0

    def guess(self, contestant: Contestant) -> float:
        """Seconds, from those of the slowest of its kin."""
        roles = OUR_ROLES if contestant.role in OUR_ROLES else RIVAL_ROLES
        kin = [each.seconds for each in self.measured.contestants if each.role in roles and not each.is_gone]
        return max(kin, default=0.0) * (SLOWNESS if contestant.role == "slow" else 1)

    def affordable(self) -> list[Contestant]:
        """Who takes part in one more round: who decides something, or at least who decides the most."""
        measured = self.measured
        best, goals = measured.best_rival(), measured.workload.goals
        always = [each for each in measured.contestants if each is best or each.role in ("plait", "plait, portable")]
        others = [each for each in measured.contestants if each.role == "other"]
        if any(goal.of == "same slots" for goal in goals):
            others += [each for each in measured.contestants if each.role == "same slots" and each is not best]
        deciding = "plait, portable" if measured.kernels_differ else "plait"
        fewest = [each for each in always if each is best or each.role == deciding]
        for takers in ([*always, *others], always, fewest):
            those = [each for each in takers if not each.is_gone]
            if those and self.timer.allows(self.limits_seconds + sum(each.seconds for each in those)):
                return those
        return []

    def open(self, contestants: Sequence[Contestant]) -> None:
        """Starts their servers, one after the other, as threads that wait for each other share the cores badly; and
        sees whether they answer."""
        for each in contestants:
            self.start(each)
            if stage := self.stages.get(each.label):
                check(each, stage)

    def start(self, contestant: Contestant) -> None:
        """Nobody finds what another one kept."""
        folder = self.cache / str(self.measured.contestants.index(contestant))
        folder.mkdir()
        setup = replace(contestant.setup, cache=folder)
        patience = PATIENCE + self.timer.seconds
        try:
            stage = Stage(contestant.rival, setup, self.client, asks_n=contestant.asks_n, patience=patience)
        except TROUBLE as reason:
            contestant.is_gone, contestant.trouble = True, str(reason)
            return
        self.stack.callback(stage.close)
        self.stages[contestant.label] = stage

    def round(self, round: int, contestants: Sequence[Contestant]) -> None:
        self.take_turns(round, contestants)
        began = self.timer.now()
        for limit, loop in self.loops:
            seconds = loop.seconds()
            limit.trouble = loop.trouble
            if not math.isnan(seconds):
                limit.seconds[round] = seconds
        self.limits_seconds = self.timer.now() - began

    def take_turns(self, round: int, contestants: Sequence[Contestant]) -> None:
        for each in shuffled(contestants, self.measured.workload.name, round):
            if not each.is_gone:
                began = self.timer.now()
                take(each, self.stages[each.label], self.measured, round)
                each.seconds = self.timer.now() - began


def shuffled(contestants: Sequence[Contestant], *seed: object) -> list[Contestant]:
    """Another order each round, and the same one each time: nobody always comes after the same other."""
    return random.Random(repr(seed)).sample(contestants, len(contestants))


def check(contestant: Contestant, stage: Stage) -> None:
    """Only servers that count tokens as we do get the same work."""
    text = words(20, "probe")
    try:
        n = count(stage.server.address, text)
    except TROUBLE as error:
        leave(contestant, stage, f"does not answer: {error!r}")
        return
    if n != n_tokens(text):
        contestant.trouble = f"counts {n} tokens where there are {n_tokens(text)}"


def count(address: tuple[str, int], prompt: str) -> int:
    """How many tokens a server counts in a prompt."""
    body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0}).encode()
    url = f"http://{address[0]}:{address[1]}/v1/completions"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        usage: Mapping[str, int] = json.load(answer)["usage"]
        return usage["prompt_tokens"]


def take(contestant: Contestant, stage: Stage, measured: Measured, round: int) -> None:
    """One turn."""
    try:
        figures = measured.workload.run(stage, measured.size, round)
        contestant.rounds[round] = figures
        stage.server.rest()
    except TimeoutError:
        leave(contestant, stage, f"gone in round {round}: takes longer than {stage.patience:.0f} s")
        return
    except TROUBLE as error:
        leave(contestant, stage, f"gone in round {round}: {error!r}")
        return
    told = ", ".join(f"{figure.name} {figure.value:.4g} {figure.unit}" for figure in figures)
    print(f"{measured.workload.name} {round}: {contestant.label}: {told}", file=sys.stderr)


def leave(contestant: Contestant, stage: Stage, trouble: str) -> None:
    """Its server is ended, so that it does not compute beside the others."""
    contestant.is_gone, contestant.trouble = True, trouble
    stage.close()
    print(f"{contestant.label}: {trouble}", file=sys.stderr)
