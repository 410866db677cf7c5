"""What is not to be evicted, and for how long: a pin is a record that stays, with all before it, while there is a file
of the pin's path. Nobody opens that file here; whoever removes it lets go of what it stood for.
"""

import os
from typing import NamedTuple

from msgspec import Struct

from plait.disk.record import Record, Tokens, address

MAX_PINS = 4096
"""In a folder."""
SHARE = 2
"""All that is pinned takes one part in so many of what a folder may hold."""
MAX_WISHES = 64
"""That wait for their record to be written."""
GRACE_SECONDS = 60.0
"""A pin may come before its file, which another process writes, but not by more than this."""


class Wish(Struct, frozen=True):
    """Some prompt's KV is to stay, wherever it is or will be."""

    path: bytes
    """Of the file, from the root on."""
    scope: str
    tokens: Tokens
    """All from position 0."""
    is_whole: bool
    """A record that goes on behind them is of no use."""

    @property
    def key(self) -> tuple[bytes, str]:
        """There is one pin for each: a later wish takes the place of the one before."""
        return self.path, self.scope

    def is_met_by(self, record: Record) -> bool:
        """Whether a record holds the last of the tokens, and comes behind all the others."""
        n = len(self.tokens)
        if record.scope != self.scope or not record.start < n <= record.end or (self.is_whole and record.end > n):
            return False
        if record.tokens[: n - record.start] != self.tokens[record.start :]:
            return False
        return address(record.scope, self.tokens[: record.start] + record.tokens, record.start) == record.id


class Wishes:
    """Those that no record meets yet; the oldest is forgotten when there are too many. Owned by a `Store`."""

    def __init__(self) -> None:
        self.open: dict[tuple[bytes, str], Wish] = {}

    def add(self, wish: Wish) -> None:
        self.open.pop(wish.key, None)
        self.open[wish.key] = wish
        if len(self.open) > MAX_WISHES:
            del self.open[next(iter(self.open))]

    def met_by(self, record: Record) -> list[Wish]:
        return [wish for wish in self.open.values() if wish.is_met_by(record)]

    def remove(self, wish: Wish) -> None:
        self.open.pop(wish.key, None)


class Pin(NamedTuple):
    """One that holds, as the index has it. `used` is in microseconds since 1970."""

    path: bytes
    scope: str
    used: int

    def is_over(self, now: int) -> bool:
        """Whether its file is gone; one that only cannot be looked at is not."""
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return self.used < now - GRACE_SECONDS * 1e6
        except (OSError, ValueError):
            return False
        return False
