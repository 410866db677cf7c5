"""A radix tree over token ids, whose edges own the cells of exactly their tokens. Structure only: no bytes are counted,
nothing is evicted, nothing is read from disk here; that is `segments`.

            root                       `walk` goes down as far as the tokens agree;
             │ [system prompt]         `reach` makes the path and cuts an edge in two where paths part.
        ┌────┴─────┐
     [talk 1]   [talk 2]               An edge with neither cells nor a file is only a way to those below.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from plait.engine.sequence import common_prefix


class Cells(Protocol):
    """What a context remembers of a range of tokens, outside of it. Never changes."""

    @property
    def n_tokens(self) -> int: ...

    @property
    def n_bytes(self) -> int: ...

    def split(self, n: int) -> tuple[Self, Self]:
        """The first `n` tokens, and the rest."""
        ...

    def buffers(self) -> list[memoryview]:
        """Their bytes, for a file."""
        ...


@dataclass(slots=True, eq=False)
class Edge:
    """Tokens `start` … `end` of every sequence that goes through it. Owned by its `Tree`."""

    tokens: list[int]
    start: int = 0
    parent: "Edge | None" = None
    children: "dict[int, Edge]" = field(default_factory=dict)
    """By their first token."""
    cells: Cells | None = None
    """Of its own tokens; where states cannot be cut, of all tokens up to its end."""
    file: bytes = b""
    """The id of the file that holds these cells, perhaps with those before or behind them; empty: none does."""
    n_exact: int = 0
    """How many of its first tokens have the bits that a prompt read from its beginning gives them."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def is_known(self) -> bool:
        return self.cells is not None or bool(self.file)

    def path(self) -> "list[Edge]":
        """From below the root down to this edge."""
        edges, edge = [self], self
        while edge.parent and edge.parent.tokens:
            edge = edge.parent
            edges.append(edge)
        return edges[::-1]

    def below(self) -> "Iterator[Edge]":
        """This edge and all that hang on it, parents first."""
        stack = [self]
        while stack:
            edge = stack.pop()
            stack += edge.children.values()
            yield edge


class Step(NamedTuple):
    """`n` of an edge's tokens agree; all of them, but for the last step of a walk."""

    edge: Edge
    n: int

    @property
    def is_whole(self) -> bool:
        return self.n == len(self.edge.tokens)


class Tree:
    """One scope's tree."""

    def __init__(self, *, can_cut: bool) -> None:
        """`can_cut=False`: cells are of all tokens up to an edge's end, and stay there when the edge is cut."""
        self.can_cut = can_cut
        self.root = Edge([])

    def walk(self, tokens: list[int]) -> list[Step]:
        """As far as the tree agrees with `tokens`, from the root down."""
        steps: list[Step] = []
        edge, position = self.root, 0
        while position < len(tokens) and (child := edge.children.get(tokens[position])):
            n = common_prefix(child.tokens, tokens[position : position + len(child.tokens)])
            steps.append(Step(child, n))
            edge, position = child, position + n
            if not steps[-1].is_whole:
                break
        return steps

    def reach(self, tokens: list[int]) -> list[Edge]:
        """The path that spells `tokens`, which must not be none; made where it is not there yet."""
        steps = self.walk(tokens)
        path = [step.edge for step in steps]
        if steps and not steps[-1].is_whole:
            path[-1] = self.cut(steps[-1].edge, steps[-1].n)
        end = path[-1].end if path else 0
        if end < len(tokens):
            parent = path[-1] if path else self.root
            path.append(Edge(tokens[end:], end, parent))
            parent.children[tokens[end]] = path[-1]
        return path

    def cut(self, edge: Edge, n: int) -> Edge:
        """Cut an edge behind its first `n` tokens; returns the new upper part. What knew the edge knows the lower."""
        upper = Edge(edge.tokens[:n], edge.start, edge.parent, n_exact=min(n, edge.n_exact))
        if self.can_cut:
            upper.file = edge.file
            if edge.cells:
                upper.cells, edge.cells = edge.cells.split(n)
        assert edge.parent
        edge.parent.children[edge.tokens[0]] = upper
        edge.tokens, edge.start, edge.parent = edge.tokens[n:], edge.start + n, upper
        edge.n_exact = max(0, edge.n_exact - n)
        upper.children = {edge.tokens[0]: edge}
        return upper


def prune(edge: Edge) -> None:
    """Remove an edge that is of no more use, and those above it that were only a way to it."""
    while (parent := edge.parent) and not edge.is_known and not edge.children:
        del parent.children[edge.tokens[0]]
        edge.parent = None
        edge = parent
