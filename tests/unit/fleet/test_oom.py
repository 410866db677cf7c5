"""What is said of a process that the kernel ended because memory ran out."""

import signal
from pathlib import Path

import pytest

from plait.fleet.oom import death, n_kills


def test_the_kernel_counts_those_that_it_ended(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 12\noom_kill_disable 7\noom_kill 3\nnr_unstable 0\n")
    assert n_kills(counters) == 3


def test_where_nothing_is_counted_nobody_was_ended(tmp_path: Path) -> None:
    assert n_kills(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("code", "n_after", "said"),
    [
        (-signal.SIGKILL, 4, "oom: memory ran out, and the kernel ended it"),
        (-signal.SIGKILL, 3, "signal 9"),
        (-signal.SIGSEGV, 4, "signal 11"),
        (70, 4, "exit code 70"),
    ],
)
def test_only_a_kill_while_the_count_rose_is_for_lack_of_memory(code: int, n_after: int, said: str) -> None:
    assert death(code, 3, n_after) == said
