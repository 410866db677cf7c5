"""A context whose next token is a hash of all that its stream holds: one wrong cell changes the rest of the text.

It also refuses what would be slow or would change bits on the real one: rows out of order, holes between writers,
chunks of other than canonical shape.
"""

import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait.errors import GenerationFailed
from plait.protocol import Verdict

N_VOCAB = 997
BLOCK = 64
N_THREADS = 2
"""Unless somebody wishes for others."""


def computed(tokens: Sequence[int], adapters: tuple[float, ...] = ()) -> list[int]:
    """The cells of tokens: themselves, unless there are adapters."""
    colour = hash(adapters) % 10**6 * 1000 if adapters else 0
    return [token + colour for token in tokens]


def spelled(cells: Sequence[int]) -> list[int]:
    """The tokens of cells, whatever they were computed with."""
    return [cell % 1000 for cell in cells]


def next_token(held: Sequence[int], seed: int = 0) -> int:
    """The token that follows the cells `held`, when it is sampled with `seed`."""
    return hash((tuple(held), seed)) % N_VOCAB


@dataclass(frozen=True)
class FakeCells:
    """What a stream holds, outside of it: the token ids themselves, if there are no adapters."""

    tokens: list[int]
    is_whole: bool = False

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        return 4 * len(self.tokens)

    def split(self, n: int) -> "tuple[FakeCells, FakeCells]":
        assert 0 < n < self.n_tokens, "nothing to split off"
        assert not self.is_whole, "a state that cannot be cut"
        return FakeCells(self.tokens[:n]), FakeCells(self.tokens[n:])

    def buffers(self) -> list[memoryview]:
        return [memoryview(array("i", self.tokens)).cast("B")]


class FakeContext:
    """Streams of token ids. `n_cells`: they share a pool of so many, where what was copied counts once."""

    def __init__(
        self,
        n_streams: int,
        *,
        can_trim: bool = True,
        can_cut: bool | None = None,
        n_cells: int | None = None,
        rules: Verdict | None = None,
    ) -> None:
        """`rules`: those that all its sequences have; what does not obey them is refused."""
        self.rules = rules
        self.cells: list[list[int]] = [[] for _ in range(n_streams)]
        self.places: list[list[int]] = [[] for _ in range(n_streams)]
        """Of each cell; copies share theirs."""
        self.counting = itertools.count()
        self.can_trim = can_trim
        self.can_cut = can_trim if can_cut is None else can_cut
        self.state_shape = "" if self.can_cut else f"{n_streams} streams"
        self.n_cells = n_cells
        self.last: list[list[int] | None] = []
        self.n_decoded = 0
        self.n_copied = 0
        self.n_threads = N_THREADS
        self.n_buffer_bytes = 0
        """As if states were moved through buffers."""
        self.adapters: tuple[float, ...] = ()
        self.has_sets = False
        """Adapters were chosen, so that writers can have others than their neighbours."""
        self.calls: list[tuple[tuple[float, ...], list[int]]] = []
        """The adapters and the streams of each decode."""

    def decode(self, spans: Sequence[tuple[int, int, list[int], bool]]) -> None:
        assert_canonical(spans, has_sets=self.has_sets)
        self.calls.append((self.adapters, [stream for stream, *_ in spans]))
        if self.rules:
            assert_obedient(spans, self.rules)
        for stream, start, tokens, _ in spans:
            assert len(self.cells[stream]) == start, "a hole or an overlap in the sequence"
            assert self.n_free >= len(tokens), "the pool is full"
            self.cells[stream] += computed(tokens, self.adapters)
            self.places[stream] += itertools.islice(self.counting, len(tokens))
            self.n_decoded += len(tokens)
        self.last = [list(self.cells[stream]) if wants else None for stream, _, _, wants in spans]

    def sampler(self, seed: int = 0) -> Callable[[int], int]:
        """What a sequence samples with."""

        def sample(span: int) -> int:
            held = self.last[span]
            assert held is not None, "no logits were asked for"
            return next_token(held, seed)

        return sample

    def use_threads(self, *wishes: int) -> None:
        self.n_threads = max(wish or N_THREADS for wish in wishes)

    def use_adapters(self, adapters: tuple[float, ...]) -> None:
        self.adapters = adapters
        self.has_sets |= adapters != ()

    @property
    def n_free(self) -> int:
        if self.n_cells is None:
            return 10**9
        return self.n_cells - self.n_held

    @property
    def n_held(self) -> int:
        return len(set(itertools.chain(*self.places))) if self.n_cells else sum(map(len, self.cells))

    def drop_buffers(self) -> None:
        self.n_buffer_bytes = 0

    def save(self, stream: int, start: int) -> FakeCells:
        assert self.can_cut or start == 0, "a state that cannot be cut"
        assert start < len(self.cells[stream]), "nothing to save"
        return FakeCells(self.cells[stream][start:], is_whole=not self.can_cut)

    def restore(self, stream: int, parts: Sequence[object]) -> None:
        assert self.can_cut or len(parts) == 1, "states that cannot be joined"
        self.cells[stream], self.places[stream] = [], []
        tokens = [token for part in parts if isinstance(part, FakeCells) for token in part.tokens]
        if self.n_free < len(tokens):
            raise GenerationFailed("the pool is full")
        self.cells[stream] = tokens
        self.places[stream] = list(itertools.islice(self.counting, len(tokens)))

    def loaded(self, start: int, n: int, payload: bytearray) -> FakeCells:
        tokens = array("i", bytes(payload)).tolist()
        if len(tokens) != n:
            raise ValueError("these are other cells")
        return FakeCells(tokens, is_whole=not self.can_cut)

    def copy(self, src: int, dst: int, n: int) -> None:
        assert self.can_trim or n == len(self.cells[src]), "a state that cannot be cut"
        self.cells[dst], self.places[dst] = self.cells[src][:n], self.places[src][:n]
        self.n_copied += n

    def swap(self, a: int, b: int) -> None:
        self.cells[a], self.cells[b] = self.cells[b], self.cells[a]
        self.places[a], self.places[b] = self.places[b], self.places[a]

    def trim(self, stream: int, n: int) -> None:
        assert self.can_trim or n in (0, len(self.cells[stream])), "a state that cannot be cut"
        del self.cells[stream][n:]
        del self.places[stream][n:]


def assert_canonical(spans: Sequence[tuple[int, int, list[int], bool]], *, has_sets: bool) -> None:
    """The shapes of docs/architecture.md: see there why each matters."""
    streams = [stream for stream, *_ in spans]
    lengths = {len(tokens) for _, _, tokens, _ in spans}
    assert streams == sorted(set(streams)), "rows must ascend by stream"
    assert len(lengths) == 1, "chunks of one call are of equal length"
    (n,) = lengths
    if n == 1 and all(wants for *_, wants in spans):
        first = streams[0] if has_sets else 0
        assert streams == list(range(first, first + len(streams))), "writers own the first streams, without a hole"
    elif n >= BLOCK:
        assert n % BLOCK == 0, "whole blocks"


def assert_obedient(spans: Sequence[tuple[int, int, list[int], bool]], rules: Verdict) -> None:
    """The shapes that `rules` allow."""
    n = len(spans[0][2])
    if n == 1:
        assert len(spans) == rules.n_rows(len(spans)), "single rows are padded"
    else:
        assert len(spans) == 1 or (rules.tails_together if n % BLOCK else rules.blocks_together), "by themselves"
        assert not (rules.ends_decoded and any(wants for *_, wants in spans)), "a prompt's last token is decoded"
