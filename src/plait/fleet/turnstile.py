"""Bounded admission: what is inside is counted, who is too much is refused at once and told when to come back.

Two things are bounded: requests inside, and prompt tokens that wait to be read. There is no tokenizer on this side: a
prompt's tokens are those that it lists, or a quarter of its characters, which is a fair guess for English only.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plait.errors import Overloaded
from plait.protocol import ChatPrompt, Prompt, RawPrompt, TokenPrompt

RECENT_SECONDS = 60.0
LONGEST_RETRY = 60
RESERVE = 1 / 8
"""Of all places: not for a tenant who holds some."""
CHARACTERS_PER_TOKEN = 4


def measure(prompt: Prompt) -> int:
    """About how many tokens it has; at least one."""
    match prompt:
        case TokenPrompt(tokens=tokens):
            return max(len(tokens), 1)
        case RawPrompt(text=text, prefix=prefix):
            return len(prefix) + len(text) // CHARACTERS_PER_TOKEN + 1
        case ChatPrompt(messages=messages):
            return sum(len(message.content) for message in messages) // CHARACTERS_PER_TOKEN + 1


class Backlog:
    """How much of something is inside, how much may be, and how fast it went away lately.

    Tenants share it. One who is alone may take all; once there has been another, all but a reserve, which is for who
    holds nothing. When there are several, each may hold an equal part; one who found no room counts as there for a
    minute, so that what becomes free is not taken by those who have their part.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self.most = most
        self.n = 0
        self._held: dict[str, int] = {}
        """By each tenant that ever came. There are as many as API keys, or one without a name."""
        self._refused: dict[str, float] = {}
        """When each tenant was told that there is no room, lately."""
        self._clock = clock
        self._gone: deque[tuple[float, int]] = deque(maxlen=64)

    def has_room(self, n: int, tenant: str) -> bool:
        """What would never fit is let in when there is nothing else."""
        held = self._held.setdefault(tenant, 0)
        if self.n and self.n + n > self.most:
            return False
        return not held or held + n <= self._part(tenant)

    def _part(self, tenant: str) -> int:
        """What a tenant who is inside may hold in all."""
        now = self._clock()
        self._refused = {name: when for name, when in self._refused.items() if now - when < RECENT_SECONDS}
        n_there = len({tenant, *self._refused, *(name for name, n in self._held.items() if n)})
        if n_there > 1:
            return self.most // n_there
        return self.most - math.ceil(self.most * RESERVE) if len(self._held) > 1 else self.most

    def add(self, n: int, tenant: str) -> None:
        self.n += n
        self._held[tenant] = self._held.get(tenant, 0) + n

    def remove(self, n: int, tenant: str) -> None:
        self.n -= n
        self._held[tenant] -= n
        self._gone.append((self._clock(), n))

    def refuse(self, tenant: str) -> int:
        """Remember that there was no room; seconds after which it may be worth while to come again."""
        self._refused[tenant] = self._clock()
        return self.retry_after()

    def retry_after(self) -> int:
        """Seconds in which all of it will be gone if it goes on going away as it did lately: 1 … 60."""
        now = self._clock()
        recent = [(moment, n) for moment, n in self._gone if now - moment < RECENT_SECONDS]
        if not recent:
            return LONGEST_RETRY
        seconds = self.n * (now - recent[0][0]) / sum(n for _, n in recent)
        return min(max(math.ceil(seconds), 1), LONGEST_RETRY)


class Place:
    """One request's: its prompt counts as waiting until it is read, or given up."""

    def __init__(self, n_tokens: int, tenant: str, waiting: Backlog) -> None:
        self._n_tokens, self._tenant, self._waiting = n_tokens, tenant, waiting
        waiting.add(n_tokens, tenant)

    def begin(self) -> None:
        """The prompt waits no longer. Means nothing the second time."""
        if self._n_tokens:
            self._waiting.remove(self._n_tokens, self._tenant)
            self._n_tokens = 0


class Turnstile:
    """Counts who is in, and measures how fast they leave."""

    def __init__(self, n_places: int, n_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`n_tokens`: of prompts that may wait."""
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self._inside = Backlog(n_places, clock)
        self._waiting = Backlog(n_tokens, clock)

    @contextmanager
    def place(self, n_tokens: int, tenant: str = "") -> Iterator[Place]:
        """A place for the time of the block, for a request with such a prompt. Raises `Overloaded` if there is none."""
        if not self._inside.has_room(1, tenant):
            message = f"{self._inside.n} requests run or wait, and there is no room for more{_whose(tenant)}"
            raise Overloaded(message, retry_after=self._inside.refuse(tenant))
        if not self._waiting.has_room(n_tokens, tenant):
            message = f"prompts of about {self._waiting.n} tokens wait, and there is no room for {n_tokens} more"
            raise Overloaded(message + _whose(tenant), retry_after=self._waiting.refuse(tenant))
        self._inside.add(1, tenant)
        self.is_empty.clear()
        place = Place(n_tokens, tenant, self._waiting)
        try:
            yield place
        finally:
            place.begin()
            self._leave(tenant)

    def _leave(self, tenant: str) -> None:
        self._inside.remove(1, tenant)
        if not self._inside.n:
            self.is_empty.set()


def _whose(tenant: str) -> str:
    """The end of a sentence that says that there is no room."""
    return " of this API key" if tenant else ""
