"""A listener that writes down what it hears."""

from dataclasses import dataclass, field

from plait.protocol import Cached


@dataclass
class Notebook:
    """`stop_at` is the token after which it has heard enough."""

    stop_at: int | None = None
    n_cached: int | None = None
    cached: Cached | None = None
    tokens: list[int] = field(default_factory=list)
    reason: str | None = None
    error: Exception | None = None
    n_progress: int = 0

    def started(self, cached: Cached) -> None:
        assert self.cached is None, "it starts once"
        self.cached = cached
        self.n_cached = cached.n

    def progress(self, n_done: int) -> None:
        self.n_progress += 1

    def token(self, token: int) -> bool:
        assert not self.is_over, "a token after the end"
        self.tokens.append(token)
        return token == self.stop_at

    def ended(self, reason: str) -> None:
        assert not self.is_over, "a second end"
        self.reason = reason

    def failed(self, error: Exception) -> None:
        assert not self.is_over, "a second end"
        self.error = error

    @property
    def is_over(self) -> bool:
        return self.reason is not None or self.error is not None
