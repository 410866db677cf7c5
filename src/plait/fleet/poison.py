"""Requests that killed three workers. They are known again for a while, whoever sends them. Pure but for the clock."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import structs

from plait import protocol
from plait.errors import KnownPoison, PoisonousRequest
from plait.protocol import Generate, Request

MOST_DEATHS = 3
"""Workers that one request may cost."""
REMEMBERED_SECONDS = 600.0
MOST_REMEMBERED = 1024


class Poison:
    """Owned by a pool."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, request: Request) -> PoisonousRequest:
        """What its client is told."""
        self._known[_digest(request)] = self._clock()
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return PoisonousRequest(f"{MOST_DEATHS} engine processes died while they computed this request")

    def refuse(self, request: Request) -> None:
        """Raise `KnownPoison` for one that is known."""
        if not self._known:
            return
        since = self._known.get(_digest(request))
        if since is not None and self._clock() - since < REMEMBERED_SECONDS:
            raise KnownPoison("engine processes died while they computed this request; it is not tried again")


def _digest(request: Request) -> bytes:
    """Of what was asked; another seed, tenant or priority does not make another request."""
    sampling = structs.replace(request.sampling, seed=None)
    same = structs.replace(request, sampling=sampling, tenant="", priority=0)
    return hashlib.sha256(protocol.encode(Generate(0, same))).digest()
