"""How much prompt a step may take, and with how many rows its writers are decoded, learned from how long steps took.
Pure arithmetic; the engine holds the watch."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from plait.engine.sequence import BLOCK

LONGEST_STEP = 2.0
"""Seconds that a step may take with nobody writing: so long do those who come or leave have to wait."""
SMOOTHING = 0.3
"""Weight of the newest measurement."""
N_REMEMBERED = 5
"""Measurements of a width of decode steps; their median counts, so that one that was disturbed does not."""
MORE_ROWS = 3
"""For nobody, at most, in a decode step."""
WORTH_ROWS = 0.001
"""Seconds that they have to save."""
ANEW = 16
"""Of so many steps that would get some, one gets none: it shows whether that is still slower."""


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
    by_rows: dict[int, deque[float]] = field(default_factory=dict)
    """The latest decode calls, by the rows that they had."""
    n_widened: int = 0
    """Decode calls that had to be wider, or would have had to be."""

    def heard_decode(self, seconds: float) -> None:
        self.decode_seconds = _smooth(self.decode_seconds, seconds)

    def heard_prompt(self, seconds: float, n_tokens: int) -> None:
        if n_tokens >= BLOCK:
            self.prompt_seconds = _smooth(self.prompt_seconds, seconds / n_tokens)

    def heard_rows(self, seconds: float, n_rows: int) -> None:
        """Of one decode call."""
        self.by_rows.setdefault(n_rows, deque(maxlen=N_REMEMBERED)).append(seconds)

    def n_rows(self, n: int, most: int) -> int:
        """How many rows `n` writers are decoded with: some more, up to `most`, where that was faster. Many kernels
        compute rows by fours, and those that are left over one by one."""
        widths = range(n, min(n + MORE_ROWS, most) + 1)
        known = {rows: median(self.by_rows[rows]) for rows in widths if self._is_known(rows)}
        fastest = min(known, key=lambda rows: known[rows], default=n)
        if known.get(n, 0.0) - known.get(fastest, 0.0) < WORTH_ROWS:
            return n
        self.n_widened += 1
        return fastest if self.n_widened % ANEW else n

    def _is_known(self, n_rows: int) -> bool:
        """Whether there were enough calls with so many rows to tell anything."""
        return len(self.by_rows.get(n_rows, ())) == N_REMEMBERED

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
