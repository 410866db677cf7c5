"""How full a pool of cells is that streams share: which cells each one refers to, and how often each is referred to.

libllama does not tell, so this follows what it is told to do. The numbers of cells are our own.
"""

import numpy as np


class Pool:
    """`n_cells` cells for `n_streams` streams."""

    def __init__(self, n_cells: int, n_streams: int) -> None:
        self._n_references = np.zeros(n_cells, np.int32)
        self._free = list(range(n_cells))
        self._cells: list[list[int]] = [[] for _ in range(n_streams)]

    @property
    def n_free(self) -> int:
        return len(self._free)

    @property
    def n_taken(self) -> int:
        return len(self._n_references) - len(self._free)

    def resize(self, stream: int, n: int) -> None:
        """A stream is to hold `n` tokens: it takes new cells, or gives back those at its end."""
        cells = self._cells[stream]
        if n > len(cells):
            taken = [self._free.pop() for _ in range(n - len(cells))]
            self._n_references[taken] = 1
            cells += taken
        elif n < len(cells):
            dropped = cells[n:]
            del cells[n:]
            self._n_references[dropped] -= 1
            self._free += [cell for cell in dropped if not self._n_references[cell]]

    def share(self, src: int, dst: int, n: int) -> None:
        """An empty stream refers to the first `n` cells of another."""
        self._cells[dst] = self._cells[src][:n]
        self._n_references[self._cells[dst]] += 1

    def swap(self, a: int, b: int) -> None:
        self._cells[a], self._cells[b] = self._cells[b], self._cells[a]
