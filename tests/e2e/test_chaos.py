"""The benchmark of kills, with few of them: it may not say of a server what is not so, nor find one that fails."""

import pytest

from benchmarks import bench_chaos
from plait.fleet.registry import DEMO
from tests.serving import serving

N_KILLS = 10


@pytest.mark.timeout(300)
def test_no_stream_is_lost_while_workers_are_killed() -> None:
    with serving("-m", DEMO, "--threads", "1", "--log-level", "error") as server:
        chaos = bench_chaos.run(server.url, N_KILLS)
    assert len(chaos.kills) == N_KILLS
    assert len(chaos.pauses) >= N_KILLS
    assert [answer for _, answer in chaos.heard if not answer.is_right] == []
    assert all(row.is_met is not False for row in bench_chaos.rows(chaos))
