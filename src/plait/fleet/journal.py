"""What one request was asked and what its client has been told: all that another worker needs to go on with it.

Owned by the request's generator in `pool`; `client` writes each answer down before it hands it on.
"""

import secrets
from dataclasses import dataclass, field

from msgspec import structs

from plait.protocol import Answer, Done, Generate, Progress, Queued, Request, Started, Text, TokenPrompt

PAUSE_SECONDS = 3.0
"""How often a client that waits is told so: proxies cut what is silent."""
CLEARING_TOKENS = 8
"""Who gets so much further on one worker is innocent of what became of those before it."""


@dataclass(slots=True, eq=False)
class Journal:
    """`request` has a concrete seed. The prompt is kept as token ids: text is never tokenized twice."""

    request: Request
    prompt: list[int] | None = None
    """None until a worker has read the request."""
    outputs: list[list[int]] = field(init=False)
    """Token ids that were told, by choice."""
    ended: set[int] = field(default_factory=set)
    """Choices of which nothing more will come."""
    n_deaths: int = 0
    """Workers in a row that died while they tokenized or computed this, before they had got much further. It may be the
    reason: what kills at a certain token does so again when it is come to, or kills at each."""
    n_attempts: int = 0
    n_new: int = 0
    """Tokens by which the present worker got further."""
    is_queued: bool = False
    """The present worker does nothing with it but keep it in its queue."""

    def __post_init__(self) -> None:
        self.outputs = [[] for _ in range(self.request.n)]

    @property
    def is_over(self) -> bool:
        return len(self.ended) == self.request.n

    @property
    def has_begun(self) -> bool:
        """Its client has been told something, so that there is a stream in which it can be told more."""
        return self.prompt is not None

    @property
    def is_resuming(self) -> bool:
        """Its client has been told something, and the present worker has nothing new yet."""
        return self.has_begun and self.n_attempts > 1 and not self.n_new

    def expects(self, choice: int) -> bool:
        """Whether a worker may say something for it now."""
        return self.has_begun and 0 <= choice < self.request.n and choice not in self.ended

    def order(self, id: int) -> Generate:
        """What a worker has to be told to do the rest."""
        self.is_queued, self.n_new = False, 0
        self.n_attempts += 1
        if self.prompt is None:
            return Generate(id, self.request)
        request = structs.replace(self.request, prompt=TokenPrompt(self.prompt))
        known = (None if choice in self.ended else tuple(told) for choice, told in enumerate(self.outputs))
        return Generate(id, request, tuple(known))

    def note(self, answer: Answer | Queued) -> bool:
        """Write down what a worker says. False: the client knows it already."""
        match answer:
            case Queued():
                self.is_queued = True
                return False
            case Started():
                self.is_queued, was_known = False, self.prompt is not None
                self.prompt = answer.prompt_tokens
                return not was_known
            case Progress():
                return not any(self.outputs) and not self.ended
            case Text():
                self.outputs[answer.choice] += answer.tokens
                self.n_new += len(answer.tokens)
            case Done():
                self.ended.add(answer.choice)
        return True

    def miss(self) -> None:
        """The worker was gone before it heard of this."""
        self.n_attempts += 1
        self.is_queued = True

    def mark(self) -> None:
        """The worker died. Who was still in its queue had no part in that."""
        if not self.is_queued:
            self.n_deaths = 1 if self.n_new >= CLEARING_TOKENS else self.n_deaths + 1


def seeded(request: Request) -> Request:
    """The request with a seed that is known outside of the worker, too, so that another could do the same work."""
    if request.sampling.seed is not None:
        return request
    # Choice i is sampled with seed + i, and 2**32 - 1 means "draw one" to libllama.
    seed = secrets.randbelow(2**32 - request.n)
    return structs.replace(request, sampling=structs.replace(request.sampling, seed=seed))
