"""Which edges have cells in RAM, whose they are, and which goes first.

Of the tenant that has the most bytes, what was not used for the longest time: so nobody's prompts drive out another's
beyond an equal share. Counts what it is told; `segments` owns the cells.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator

from plait import disk
from plait.engine.radix import Edge


class Residents:
    """Each edge with its scope. Of one tenant, children come before their parents."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._by_tenant: dict[str, OrderedDict[Edge, str]] = {}
        self._n_bytes: Counter[str] = Counter()
        self._tenants: dict[Edge, str] = {}

    def __iter__(self) -> Iterator[Edge]:
        return iter(self._tenants)

    def scope(self, edge: Edge) -> str:
        return self._by_tenant[self._tenants[edge]][edge]

    def count(self, n_bytes: int, scope: str) -> None:
        """So many came, or went."""
        self.n_bytes += n_bytes
        self._n_bytes[disk.tenant(scope)] += n_bytes

    def touch(self, edge: Edge, scope: str) -> None:
        """It was used just now."""
        tenant = self._tenants[edge] = disk.tenant(scope)
        edges = self._by_tenant.setdefault(tenant, OrderedDict())
        edges[edge] = scope
        edges.move_to_end(edge)

    def remove(self, edge: Edge) -> str:
        """Returns the scope that it was of."""
        tenant = self._tenants.pop(edge)
        edges = self._by_tenant[tenant]
        scope = edges.pop(edge)
        if not edges:
            del self._by_tenant[tenant]
        return scope

    def first(self) -> Edge:
        """Who goes first."""
        return next(iter(self._by_tenant[max(self._by_tenant, key=self._n_bytes.__getitem__)]))
