"""Real processes on one folder: killed at any step, crowded, out of room. What is served afterwards is right."""

import subprocess
import sys
from pathlib import Path

import pytest

from plait.disk import Written, segment
from tests.process.disk.crowding import MAX_BYTES
from tests.process.disk.dying import THIRD
from tests.unit.disk.making import CHILD, COUSIN, ROOT, ids, is_right, served, write

WITHIN = 250.0
"""Seconds for a process that starts a hundred others, or often waits for the disk, on a machine that is slow."""
ROOM_FOR_THREE = 3 * segment.n_bytes(CHILD)


def start(module: str, *args: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"tests.process.disk.{module}", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.timeout(2 * WITHIN)
def test_wherever_a_writer_is_killed_a_restart_serves_the_old_or_the_new(tmp_path: Path) -> None:
    write(tmp_path / "base" / "0123", ROOT, COUSIN)
    n_children = int(output(start("dying", tmp_path, ROOM_FOR_THREE))[0])
    assert n_children > 50
    states = [[ROOT, COUSIN], [ROOT, COUSIN, CHILD], [ROOT, CHILD], [ROOT, CHILD, THIRD]]
    expected = [{record.id for record in state} for state in states]
    met = []
    for n in range(1, n_children + 1):
        found = served(tmp_path / str(n) / "0123", ROOM_FOR_THREE)
        assert is_right(found)
        assert not list((tmp_path / str(n) / "0123").glob("*.tmp"))
        met.append(expected.index(set(found)))
    assert met == sorted(met)
    assert set(met) == {0, 1, 2, 3}


@pytest.mark.timeout(2 * WITHIN)
def test_processes_that_crowd_a_folder_read_nothing_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "0123"
    crowd = [start("crowding", folder, seed) for seed in range(2)]
    said = [output(process) for process in crowd]
    assert all(int(out) > 0 for out, _ in said)
    assert is_right(found := served(folder))
    assert found
    assert sum(path.stat().st_size for path in folder.glob("*.kv")) <= MAX_BYTES
    assert not list(folder.glob("*.tmp"))


def test_a_full_disk_is_read_on_and_said_once(tmp_path: Path) -> None:
    write(tmp_path / "0123", ROOT)
    out, err = output(start("full", tmp_path / "0123"))
    assert sorted(out.split()) == ["Lost", "Lost", "Read"]
    assert err.count("going on without writing") == 1
    assert served(tmp_path / "0123").keys() == {ROOT.id}
    assert ids(write(tmp_path / "0123", CHILD), Written) == [CHILD.id]
