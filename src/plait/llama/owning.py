"""For what owns something native: used as a context manager, it is closed at the block's end. Knows no libllama."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Owner(ABC):
    """Whoever makes one closes it."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is owned; more than once does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
