"""Time as a thing that is divided: among workloads, and within one among rounds."""

import time
from collections.abc import Callable


class Timer:
    """So many seconds, from now on."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.now = now
        self.began = now()

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long still fits in."""
        return self.now() - self.began + seconds <= self.seconds


class Clock:
    """Divides what is left of the time among what is left to do, by weight."""

    def __init__(self, minutes: float, weight: float, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.began = now()
        self.end = self.began + minutes * 60
        self.weight = weight

    @property
    def minutes(self) -> float:
        """Since it began."""
        return (self.now() - self.began) / 60

    def part(self, weight: float) -> float:
        """Seconds for so much of what is left to do."""
        return max(0.0, self.end - self.now()) * weight / self.weight

    def begin(self, weight: float) -> Timer:
        """For something that is begun now, and is not left to do any more."""
        timer = Timer(self.part(weight), self.now)
        self.weight -= weight
        return timer
