"""The seam between HTTP and models: a `Fleet` serves named models. Local processes, Ray and fakes are fleets.

Dialects know this file and `protocol`, and nothing else of what runs where.
"""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from msgspec import Struct, field

from plait.metrics import Tally
from plait.protocol import Answer, ModelInfo, Request, Stats

State = Literal["loading", "ready", "restarting", "failed", "unloading"]


class Replica(Struct, frozen=True, kw_only=True):
    """One worker as seen from outside."""

    pid: int | None
    state: State
    stats: Stats | None
    seconds_since_pulse: float | None
    """Since the engine thread last spoke; grows while it hangs."""
    patience: float
    """For so many seconds it may be silent; after that it is replaced."""
    n_running: int
    """Requests that it has been given."""
    n_restarts: int


class Served(Struct, frozen=True, kw_only=True):
    """One model that is served, under the name that requests use."""

    name: str
    path: str
    created: int
    """Unix time of the load, seconds."""
    state: State
    reason: str
    """Why it is not ready; empty when it is."""
    info: ModelInfo | None
    replicas: list[Replica]
    tally: Tally = field(default_factory=Tally)
    """What its requests came to so far; the fleet's own, which goes on counting."""

    @property
    def was_refused(self) -> bool:
        """Whether it could not be loaded: it has never been served, and another may be loaded under its name."""
        return self.state == "failed" and not self.replicas


class Fleet(Protocol):
    """What HTTP may ask of models. Every method raises `PlaitError`s only."""

    def models(self) -> list[Served]:
        """All served models, in the order in which they were asked for, and then those that could not be loaded; the
        first is the default."""
        ...

    def generate(self, model: str | None, request: Request) -> AsyncGenerator[Answer, None]:
        """The answer to `request`, as events until every choice is `Done`. None: the default model.

        Leaving the loop early cancels the work. Raises before the first event: `ModelNotFound`, `Overloaded`,
        `Unavailable` and whatever the worker refuses; at any time: `WorkerDied`.
        """
        ...

    def forget(self) -> None:
        """Empty the prefix caches of all models, in RAM and on disk. Requests that run go on."""
        ...

    async def load(self, source: str, name: str | None = None) -> Served:
        """Serve one more model (`file.gguf`, `hf:owner/repo[:quant]`, `name=either`); returns when it is ready.

        `name` is what requests call it, if that is not to follow from the source.

        Raises `Conflict` when the name is taken, `OutOfMemory`, `ModelNotFound`, `InvalidModel`, `ModelLoadFailed`.
        What was found and cannot be loaded is listed with the reason.
        """
        ...

    async def unload(self, name: str) -> None:
        """Stop serving a model: new requests are refused, running ones finish within the drain time. Or no longer list
        one that could not be loaded.

        Raises `ModelNotFound`, and `Conflict` while it is still loading.
        """
        ...
