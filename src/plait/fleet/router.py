"""Which replica gets a request: the one that knows most of its prompt, unless it is much busier than another.

Or each in its turn, for who wants that. Pure: takes prompts and loads, returns an index. Remembers what was sent where,
in bounded memory, and knows nothing of what a worker has forgotten since.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from plait.protocol import ChatPrompt, Prompt, RawPrompt, TokenPrompt

BLOCK_CHARACTERS = 256
BLOCK_TOKENS = 64
MOST_BLOCKS = 64
"""Of a prompt; what comes after its first 16,384 characters changes nothing."""
MOST_REMEMBERED = 16_384
"""Blocks, per replica."""


def heads(prompt: Prompt) -> list[int]:
    """One hash for each whole block of the prompt's beginning; each stands for all that comes before it, too."""
    hashes: list[int] = []
    before = 0
    for block in _blocks(prompt):
        before = hash((before, block))
        hashes.append(before)
    return hashes


def _blocks(prompt: Prompt) -> Iterator[str | tuple[int, ...]]:
    match prompt:
        case TokenPrompt(tokens=tokens):
            for start in _starts(len(tokens), BLOCK_TOKENS):
                yield tuple(tokens[start : start + BLOCK_TOKENS])
        case RawPrompt(text=text):
            yield from _pieces(text)
        case ChatPrompt(messages=messages):
            yield from _pieces("\0".join(f"{message.role}\0{message.content}" for message in messages))


def _pieces(text: str) -> Iterator[str]:
    for start in _starts(len(text), BLOCK_CHARACTERS):
        yield text[start : start + BLOCK_CHARACTERS]


def _starts(n: int, size: int) -> range:
    return range(0, min(n - size + 1, MOST_BLOCKS * size), size)


class RoundRobin:
    """Each replica in its turn, whatever is asked and however busy it is. Owned by the pool whose replicas they are."""

    def __init__(self, n_replicas: int) -> None:
        self.n_replicas = n_replicas
        self.last = -1
        """Who had a turn last."""

    def choose(self, prompt: Prompt, loads: Mapping[int, int]) -> int:
        """The one in `loads` whose turn it is."""
        self.last = min(loads, key=self.turn)
        return self.last

    def turn(self, replica: int) -> int:
        """How many others come before it."""
        return (replica - self.last - 1) % self.n_replicas


class Router:
    """What each replica has been asked. Owned by the pool whose replicas they are."""

    def __init__(self, n_replicas: int, slack: int) -> None:
        self.slack = slack
        """How many more requests than the least busy one a replica may have and still be chosen for what it knows."""
        self._known: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(n_replicas)]
        self._round = RoundRobin(n_replicas)

    def choose(self, prompt: Prompt, loads: Mapping[int, int]) -> int:
        """One of the replicas in `loads`, which says how many requests each of them has."""
        blocks = heads(prompt)
        least = min(loads.values())
        chosen = max(
            (replica for replica, load in loads.items() if load <= least + self.slack),
            key=lambda replica: (self._n_known(replica, blocks), -loads[replica], -self._round.turn(replica)),
        )
        self._round.last = chosen
        self._remember(chosen, blocks)
        return chosen

    def _n_known(self, replica: int, blocks: list[int]) -> int:
        known = self._known[replica]
        return next((n for n, block in enumerate(blocks) if block not in known), len(blocks))

    def _remember(self, replica: int, blocks: list[int]) -> None:
        known = self._known[replica]
        for block in reversed(blocks):
            # A prompt's beginning is touched last and so forgotten last: without it, the rest is worth nothing.
            known[block] = None
            known.move_to_end(block)
        while len(known) > MOST_REMEMBERED:
            known.popitem(last=False)
