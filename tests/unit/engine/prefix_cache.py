"""What must hold of a prefix cache on a fake context, whatever was done to it."""

from plait.engine.segments import Segments
from tests.fakes.context import FakeCells, spelled


def check_segments(segments: Segments) -> None:
    """Bytes are counted, cells are those of their tokens, and nothing hangs on what is not there."""
    edges = [edge for tree in segments.trees.values() for edge in tree.root.below() if edge.parent]
    with_cells = [edge for edge in edges if edge.cells]
    assert segments.n_bytes == sum(edge.cells.n_bytes for edge in with_cells if edge.cells)
    assert segments.n_bytes + segments.memory.n_buffer_bytes <= segments.max_bytes
    assert set(with_cells) == set(segments.in_ram)
    for edge in edges:
        path = edge.path()
        tokens = [token for each in path for token in each.tokens]
        assert edge.tokens
        assert edge.end == len(tokens)
        assert edge.is_known or edge.children, "it is of no use"
        if edge.cells:
            assert isinstance(edge.cells, FakeCells)
            assert spelled(edge.cells.tokens) == (edge.tokens if segments.memory.can_cut else tokens)
            assert not segments.memory.can_cut or all(each.cells for each in path), "what is above it has gone first"
