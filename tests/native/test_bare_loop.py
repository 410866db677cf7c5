"""The bare loop does what a workload asks for: each group reads its prompt once, and all write."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernels_program import Loop
from benchmarks.random_model import SHAPES, write
from benchmarks.workloads.base import Load, Phase


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    path: Path = tmp_path_factory.mktemp("loop") / "tiny.gguf"
    write(SHAPES["tiny"], "tiny", path)
    return Loop(path, 4, 256)


def test_streams_of_a_group_share_what_it_reads_and_all_write(loop: Loop) -> None:
    assert loop.seconds(Load(4, (Phase(2, 8), Phase(4, 3, 2)))) > 0
    assert [loop.context.held(stream) for stream in range(4)] == [8 + 3 + 1] * 4  # what is chosen last is not decoded
    one, same_group, other_group = (
        np.concatenate(loop.context.save(stream, 0).split(8)[0].buffers()) for stream in range(3)
    )
    assert (one == same_group).all()
    assert (one != other_group).any()


def test_a_load_begins_with_empty_streams(loop: Loop) -> None:
    loop.seconds(Load(2, (Phase(2, 5, 1),)))
    loop.seconds(Load(2, (Phase(1, 7), Phase(2, 2, 1), Phase(2, 4, 3))))
    assert [loop.context.held(stream) for stream in range(4)] == [7 + 2 + 4 + 2] * 2 + [0, 0]
