"""Which processors count, by files like the kernel's."""

import os
from pathlib import Path

import pytest

from plait.cores import n_cores, n_processors


def paired(folder: Path) -> Path:
    """Every two processors are the hardware threads of one core."""
    for number in os.sched_getaffinity(0):
        (folder / f"cpu{number}" / "topology").mkdir(parents=True)
        first = number - number % 2
        (folder / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(f"{first}-{first + 1}\n")
    return folder


def test_a_core_counts_once_however_many_threads_it_runs(tmp_path: Path) -> None:
    n_pairs = len({number // 2 for number in os.sched_getaffinity(0)})
    assert n_cores(paired(tmp_path), cgroups=tmp_path) == n_pairs


def test_where_the_kernel_tells_nothing_each_processor_is_a_core(tmp_path: Path) -> None:
    assert n_cores(tmp_path, tmp_path) == n_processors()


@pytest.mark.parametrize(("quota", "n"), [("50000 100000", 1), ("100000 100000", 1), ("190000 100000", 1)])
def test_a_quota_bounds_them_and_leaves_one(tmp_path: Path, quota: str, n: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert n_cores(tmp_path, tmp_path) == n


def test_without_a_quota_all_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert n_cores(tmp_path, tmp_path) == n_processors()
