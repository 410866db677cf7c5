"""Who takes part in a workload: servers at some settings, what each is compared for, and what it measured."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from benchmarks.rivals.base import Rival, Setup
from benchmarks.rivals.llama_cpp_python import LlamaCppPython
from benchmarks.rivals.llama_server import LlamaServer
from benchmarks.rivals.plait import Plait, PortablePlait
from benchmarks.rivals.url import Url
from benchmarks.workloads.base import Figure, Size, Try, Workload

Role = Literal["plait", "plait, portable", "plait, more", "same slots", "default", "try", "slow", "other"]
"""What a contestant is compared for. `same slots`, `default` and `try` are llama-server's: the best of them counts."""
RIVAL_ROLES: tuple[Role, ...] = ("same slots", "default", "try")
OUR_ROLES: tuple[Role, ...] = ("plait", "plait, portable", "plait, more")
PATIENT_MS = 1000
"""Between two tokens, where a server's throughput counts and not its manners."""


@dataclass
class Contestant:
    """A server at some settings, and what it measured: a list of figures by round."""

    label: str
    role: Role
    rival: Rival
    setup: Setup
    asks_n: bool = True
    is_needed: bool = True
    """Takes part even when the time is over."""
    rounds: dict[int, list[Figure]] = field(default_factory=dict)
    seconds: float = 0.0
    """How long its last turn took."""
    is_gone: bool = False
    trouble: str = ""
    """Why there are no figures, or what is wrong with them."""

    def by_round(self, name: str) -> dict[int, float]:
        """One figure's values."""
        return {round: figure.value for round, found in self.rounds.items() for figure in found if figure.name == name}

    def values(self, name: str) -> list[float]:
        return list(self.by_round(name).values())

    def median(self, name: str) -> float:
        """NaN: never measured."""
        values = self.values(name)
        return statistics.median(values) if values else math.nan

    @property
    def has_failed(self) -> bool:
        """Some of its answers."""
        return bool(self.values("failed answers"))


def contestants(
    workload: Workload, size: Size, model: Path, urls: Sequence[str], *, kernels_differ: bool
) -> list[Contestant]:
    """Those who decide first, then the others in the order in which they get what is left of the time."""
    own = Setup(model, workload.n_slots, workload.n_ctx(size), has_host_cache=workload.has_host_cache)
    default = Setup(model)
    rival = LlamaServer()
    tries = [tried(one, own, rival) for one in workload.tries]
    is_compared = not tries or any(goal.of == "same slots" for goal in workload.goals)
    found = [Contestant("Plait", "plait", Plait(), own)]
    if kernels_differ:
        found.append(Contestant("Plait, portable kernels", "plait, portable", PortablePlait(), own))
    found += [
        Contestant("llama-server, same slots", "same slots", rival, own, is_needed=is_compared),
        *tries[:1],
        *(Contestant(url, "other", Url(url), own) for url in urls),
        Contestant("llama-server, default", "default", rival, default, asks_n=False, is_needed=False),
        *(replace(one, is_needed=False) for one in tries[1:]),
        Contestant("Plait, default", "plait, more", Plait(), default, is_needed=False),
    ]
    if workload.wants_patience:
        patient = replace(own, itl_target_ms=PATIENT_MS)
        label = f"Plait, --itl-target-ms {PATIENT_MS}"
        found.append(Contestant(label, "plait, more", Plait(), patient, is_needed=False))
    return found + (slow(own, default) if workload.has_slow_rivals else [])


def tried(one: Try, own: Setup, rival: Rival) -> Contestant:
    setup = replace(
        own,
        n_slots=one.n_slots or own.n_slots,
        is_unified=one.is_unified,
        n_batch=one.n_batch,
        has_host_cache=own.has_host_cache and one.has_host_cache,
        is_greedy=one.is_greedy,
    )
    return Contestant(f"llama-server, {one.label}", "try", rival, setup, one.asks_n)


def slow(own: Setup, default: Setup) -> list[Contestant]:
    rival = LlamaCppPython()
    return [
        Contestant("llama-cpp-python, default", "slow", rival, default, asks_n=False, is_needed=False),
        Contestant("llama-cpp-python, patient", "slow", rival, own, asks_n=False, is_needed=False),
    ]
