"""One continuation of one prompt, as the engine sees it: token ids in, token ids out.

A `Sequence` belongs to the engine's thread. Siblings (`n` continuations of one prompt) share a `Group`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from plait.errors import GenerationFailed
from plait.protocol import Cached, Pin, Verdict

Reason = Literal["stop", "length"]

BLOCK = 64
"""Prompt tokens of a chunk, as long as there are so many: a row's arithmetic does not depend on who else is served
(`docs/architecture.md`, canonical shapes)."""
SMALL_BLOCK = 32
"""Known output is read in chunks that end at multiples of this: below a block, a row gets the bits that it got when it
was written. The rest of a prompt behind its last whole block has so many at a time, if that is deep in the context."""
DEEP = 512
"""From this position on, attention makes a row of less than a block so dear that half of one is enough for a step."""
Adapters = tuple[float, ...]
"""How much of each LoRA adapter the rows of one decode call are computed with; (): what the context began with."""
NOWHERE = -1
"""The stream of a sequence that has none."""


class Listener(Protocol):
    """Who hears what a sequence says. Called on the engine's thread, in the order of events; must be quick."""

    def started(self, cached: Cached) -> None:
        """The prompt is being read, but for what was cached of it."""
        ...

    def progress(self, n_done: int) -> None:
        """`n_done` tokens of the prompt are in the context, and more are to come."""
        ...

    def token(self, token: int) -> bool:
        """One more token was chosen. True: enough, the sequence ends here with reason `stop`."""
        ...

    def ended(self, reason: Reason) -> None:
        """Nothing follows."""
        ...

    def failed(self, error: GenerationFailed) -> None:
        """Nothing follows, because the engine could not go on with this sequence."""
        ...


@dataclass(slots=True, eq=False)
class Group:
    """The continuations that one request asked for; cancelled together, and sharing slots fairly with others."""

    shares: bool = True
    """May take prefixes that others computed, and leave its own to them."""
    pin: Pin | None = None
    """What of the prompt is not to be evicted from disk."""
    chunk: int = BLOCK
    """The most prompt tokens of one decode call, if that is less than a block."""
    n_threads: int = 0
    """Wanted for its decode calls; 0: no wish."""
    priority: int = 0
    tenant: str = ""
    """Whose request it is; tenants share slots fairly, too."""
    scope: str = ""
    """Prefixes are shared with requests of the same scope only."""
    adapters: Adapters = ()
    """What its rows are computed with. Part of the scope: what was computed with others is of no use here."""
    landmarks: frozenset[int] = frozenset()
    """Where others are likely to go on from: a chunk of the prompt ends there, and what the stream holds is kept. For
    memory that cannot be cut; other memory is kept in full."""
    rules: Verdict | None = None
    """What its rows ask for to get the bits of a request that is alone; None: any bits will do."""
    members: "list[Sequence]" = field(default_factory=list)
    n_running: int = 0

    def __post_init__(self) -> None:
        if self.adapters:
            self.scope = f"{self.scope} {self.adapters}"


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is the prompt and what was chosen since.

    [0, n_past)            is in the context, in `stream`
    [n_past, len(tokens))  is still to be decoded: the prompt's rest, or the token that was chosen last
    """

    tokens: list[int]
    group: Group
    listener: Listener
    sample: Callable[[int], int]
    """Choose the next token from the logits of the k-th span of the last decode."""
    max_tokens: int
    """How many to choose, at least one; already bounded by the context."""
    end_tokens: frozenset[int] = frozenset()
    stream: int = NOWHERE
    n_past: int = 0
    n_prompt: int = 0
    arrival: int = 0
    """Counts submissions; a lower number came earlier."""
    reason: Reason | None = None
    n_exact: int = 0
    """Leading tokens whose cells have the bits of a cold run: they were read in whole blocks, from the beginning on."""
    cached: Cached | None = None
    """What was cached when it first got a stream; None: it has had none yet."""
    has_started: bool = False
    n_in_ram: int | None = None
    """Tokens that were in RAM when what is on disk behind them was asked for: that is here by now, or will never be.
    None: nobody asked."""
    siblings: "list[Sequence]" = field(default_factory=list)
    """Those that begin where this one's prompt ends; emptied when they have."""

    def __post_init__(self) -> None:
        assert self.tokens, "a prompt has at least one token"
        self.n_prompt = len(self.tokens)
        self.group.members.append(self)

    @property
    def n_todo(self) -> int:
        return len(self.tokens) - self.n_past

    @property
    def n_output(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_chunked(self) -> int:
        """Leading tokens that are read in chunks before anything is chosen. By the rules, what follows gets the bits
        of decoded tokens, and a last chunk of one token is none: it is decoded."""
        rules = self.group.rules
        if rules is None:
            return self.n_prompt
        n_last = self.n_prompt % (SMALL_BLOCK if self.n_prompt > DEEP else BLOCK)
        return self.n_prompt - (rules.ends_decoded or n_last == 1)

    @property
    def findable(self) -> list[int]:
        """What of it the prefix cache may have: all but the last token, which is to be decoded. By the rules nothing of
        the output: another request may have had that as its prompt."""
        n = len(self.tokens) - 1
        return self.tokens[: n if self.group.rules is None else min(n, self.n_chunked)]

    def next_border(self, position: int) -> int:
        """Where a chunk that begins at `position` has to end at the latest. Depends on nothing but the request."""
        n_chunked, rules = self.n_chunked, self.group.rules
        if position >= n_chunked:
            step = min(SMALL_BLOCK, rules.replay_chunk) if rules else SMALL_BLOCK
            end = len(self.tokens) - (rules is not None and rules.ends_decoded)
            return min(_next_multiple(step, position), end)
        nearest = min((mark for mark in self.group.landmarks if mark > position), default=self.n_prompt)
        is_deep_rest = position >= DEEP and self.n_prompt - position < BLOCK
        n = min(SMALL_BLOCK if is_deep_rest else BLOCK, self.group.chunk)
        return min(position + n, n_chunked, nearest)

    @property
    def is_writing(self) -> bool:
        """One token to decode gives the next one: no prompt is left to read. Or all that is left is decoded, by the
        rules, although it is known."""
        return self.is_decoded(self.n_past)

    def is_decoded(self, position: int) -> bool:
        """Whether all from `position` on is decoded token by token."""
        if len(self.tokens) - position == 1:
            return True
        rules = self.group.rules
        return rules is not None and rules.replay_chunk == 1 and position >= self.n_chunked

    def advance(self, n: int, *, is_exact: bool = True) -> None:
        """Book that the next `n` tokens are in the context. `is_exact`: whole blocks got the bits that they always
        get."""
        if is_exact and self.n_exact == self.n_past and n % BLOCK == 0 and self.n_past + n <= self.n_prompt:
            self.n_exact += n
        self.n_past += n

    def take(self, token: int) -> None:
        """Book a chosen token, and whether it was the last."""
        self.tokens.append(token)
        if self.listener.token(token) or token in self.end_tokens:
            self.reason = "stop"
        elif self.n_output >= self.max_tokens:
            self.reason = "length"


def _next_multiple(n: int, position: int) -> int:
    return position - position % n + n


def whole_blocks(n: int) -> int:
    """As many of `n` tokens as are in whole blocks."""
    return n - n % BLOCK


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading tokens two lists share. Compares slices, so that the loop runs in C."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
