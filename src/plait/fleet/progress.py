"""What is told of work that takes long: a file that is fetched, or converted."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Told now and then: a file's name, how many of its bytes are here, and of how many, where that is known."""


def unheard(file: str, n_done: int, n_total: int | None) -> None:
    """Progress that nobody watches."""
