"""Models that could not be loaded, and why: listed until they are removed, or something is loaded under their name."""

import time
from collections import OrderedDict

from plait.errors import PlaitError
from plait.fleet.base import Served
from plait.fleet.registry import Source

MOST_REMEMBERED = 32


class Failures:
    """Owned by a fleet. The oldest make room for new ones."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Served] = OrderedDict()

    def remember(self, source: Source, error: PlaitError) -> None:
        self.forget(source.name)
        self._known[source.name] = Served(
            name=source.name,
            path=str(source.path),
            created=int(time.time()),
            state="failed",
            reason=error.message,
            info=None,
            replicas=[],
        )
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, name: str) -> bool:
        """Whether it was known."""
        return self._known.pop(name, None) is not None

    def served(self) -> list[Served]:
        """What others may know of them."""
        return list(self._known.values())
