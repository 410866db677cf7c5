"""Any server that speaks OpenAI's dialect and already runs. Nothing is known of its processes and settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.rivals.base import Build, Counted, NotThere, Setup
from benchmarks.rivals.processes import answers


@dataclass(frozen=True)
class Elsewhere:
    """A `Server` that is not ours."""

    address: tuple[str, int]
    memory: int = 0

    def counted(self) -> Counted | None:
        return None

    def rest(self) -> None: ...

    def keep(self, n_slots: int) -> None: ...

    def recall(self, n_slots: int) -> None: ...


@dataclass(frozen=True)
class Url:
    url: str

    @property
    def name(self) -> str:
        return self.url

    def install(self) -> None: ...

    def build(self) -> Build:
        return Build(self.url, "not told")

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Elsewhere]:
        parts = urlsplit(self.url)
        address = parts.hostname or "127.0.0.1", parts.port or 80
        if not answers(address, "/v1/models"):
            raise NotThere(f"{self.url}/v1/models does not answer")
        yield Elsewhere(address)
