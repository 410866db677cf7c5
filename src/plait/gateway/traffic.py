"""What runs through the gateway as a whole. `app` counts, `server` drains, `admin` tells."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Traffic:
    """Lives on the event loop's thread, as long as the gateway."""

    is_preparing: bool = False
    """The models are still loading, or the dialects have yet to do what comes before the first request."""
    is_draining: bool = False
    """No new requests; those that run may finish."""
    n_running: int = 0
    is_quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing runs."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by HTTP status."""

    def __post_init__(self) -> None:
        self.is_quiet.set()

    @contextmanager
    def one_request(self) -> Iterator[None]:
        self.n_running += 1
        self.is_quiet.clear()
        try:
            yield
        finally:
            self.n_running -= 1
            if not self.n_running:
                self.is_quiet.set()
