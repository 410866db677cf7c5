"""How much prompt a step may take, learned from how long steps took. Pure arithmetic; the engine holds the watch."""

from dataclasses import dataclass

from plait.engine.sequence import BLOCK

LONGEST_STEP = 2.0
"""Seconds that a step may take with nobody writing: so long do those who come or leave have to wait."""
SMOOTHING = 0.3
"""Weight of the newest measurement."""


@dataclass(slots=True, eq=False)
class Pace:
    """Owned by the scheduler. Seconds throughout."""

    target: float
    """While somebody writes, a step should take no longer."""
    n_batch: int
    n_ubatch: int
    decode_seconds: float = 0.0
    """One step of the writers."""
    prompt_seconds: float = 0.0
    """One prompt token, in chunks of at least a block; 0 before the first."""

    def heard_decode(self, seconds: float) -> None:
        self.decode_seconds = _smooth(self.decode_seconds, seconds)

    def heard_prompt(self, seconds: float, n_tokens: int) -> None:
        if n_tokens >= BLOCK:
            self.prompt_seconds = _smooth(self.prompt_seconds, seconds / n_tokens)

    def budget(self, has_writers: bool) -> int:
        """Prompt tokens for the next step, the multiple of a block that comes nearest to the target; one block until
        the speed is known.

        With nobody writing it is at most one pass over the weights: larger steps gain nothing, and would only delay
        those who arrive or leave meanwhile.
        """
        if not self.prompt_seconds:
            return BLOCK
        seconds, most = (
            (self.target - self.decode_seconds, self.n_batch) if has_writers else (LONGEST_STEP, self.n_ubatch)
        )
        n_blocks = min(round(seconds / self.prompt_seconds / BLOCK), most // BLOCK)
        return max(n_blocks, 1) * BLOCK


def _smooth(old: float, new: float) -> float:
    return old + SMOOTHING * (new - old) if old else new
