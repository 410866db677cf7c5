"""What a benchmark needs of a server, and what it says about how the server is to be started."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Setup:
    """How to start a server. What it has no word for, a rival leaves out."""

    model: Path
    n_slots: int = 0
    """0: as many as the server chooses when it is not told."""
    n_ctx: int = 0
    """Tokens per slot; 0: the server's choice."""
    is_unified: bool = False
    """One memory for all slots instead of one each."""
    n_batch: int = 0
    is_greedy: bool = False
    """Samples with nothing but what greedy answers need, where a server can be told so."""
    itl_target_ms: int = 0
    """Milliseconds between two tokens that a server aims at, where it has such an aim; 0: its default."""
    has_host_cache: bool = True
    """What idle slots hold is copied to other memory, where a server does that."""
    cache: Path | None = None
    """An empty folder for what is to be known after a restart."""


@dataclass(frozen=True)
class Counted:
    """What a server says that it computed since its start."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Build:
    """What is installed."""

    version: str
    features: str
    """The instruction sets that its kernels were built with, as llama.cpp tells them: `CPU : AVX = 1 | AVX2 = 1`."""

    @property
    def instructions(self) -> list[str]:
        """Their names; empty when they are not told."""
        parts = (part.rpartition(":")[2].split("=") for part in self.features.split("|"))
        return [part[0].strip() for part in parts if len(part) == 2 and part[1].strip() == "1"]


class Server(Protocol):
    """One that runs."""

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def memory(self) -> int:
        """Resident bytes of all of its processes; 0: they are not ours to see."""
        ...

    def counted(self) -> Counted | None:
        """None: it does not tell."""
        ...

    def rest(self) -> None:
        """Called after each turn: what it would do later by itself must not disturb the others."""
        ...

    def keep(self, n_slots: int) -> None:
        """Called when nothing runs, before a stop after which the server shall know what it knows now."""
        ...

    def recall(self, n_slots: int) -> None:
        """Called after that start."""
        ...


class Rival(Protocol):
    """One that can be installed and started."""

    @property
    def name(self) -> str: ...

    def install(self) -> None:
        """Once; does nothing when that is done. Raises `NotThere`."""
        ...

    def build(self) -> Build: ...

    def start(self, setup: Setup) -> AbstractContextManager[Server]:
        """Ready to answer when entered, gone when left. Raises `NotThere`."""
        ...


class NotThere(RuntimeError):
    """A rival cannot be installed or started here; the message says why."""
