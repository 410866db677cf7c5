"""What a worker can no longer do once it has shut itself in: tried by a process that does so, and not by its word."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from msgspec import json

from plait.fleet.process import environment
from plait.protocol import Protection
from plait.worker import landlock, sandbox
from tests.process.shut_in import Outcome

FORBIDDEN: dict[Protection, tuple[str, ...]] = {
    "no network": ("connect", "bind", "TCP socket", "UDP socket", "Unix socket"),
    "no writes": ("create", "append", "truncate", "remove", "make a folder", "link"),
    "no foreign files": ("other file", "list folder", "parent's environment"),
    "no programs": ("exec",),
}
NEEDED = ("other file's presence", "model", "Python", "processors", "memory", "process")


def shut_in(folder: Path, environment: dict[str, str]) -> Outcome:
    for name in ("model", "other", "victim"):
        (folder / name).write_bytes(b"weights")
    command = [sys.executable, "-m", "tests.process.shut_in", str(folder / "model")]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.decode(ran.stdout, type=Outcome)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return shut_in(tmp_path_factory.mktemp("models"), environment())


@pytest.mark.parametrize("protection", FORBIDDEN)
def test_what_is_claimed_holds_in_every_thread(outcome: Outcome, protection: Protection) -> None:
    for thread in (outcome.main_thread, outcome.later_thread):
        endings = {thread[attempt] for attempt in FORBIDDEN[protection]}
        assert (protection in outcome.claimed) == (endings <= {"EPERM", "EACCES"})


def test_a_file_keeps_its_mode_where_calls_are_forbidden(outcome: Outcome) -> None:
    assert (outcome.main_thread["chmod"] == "EPERM") == ("no network" in outcome.claimed)


@pytest.mark.parametrize("attempt", NEEDED)
def test_what_is_needed_goes_on(outcome: Outcome, attempt: str) -> None:
    assert outcome.main_thread[attempt] == outcome.later_thread[attempt] == "done"


def test_a_removed_file_is_known_to_be_gone(outcome: Outcome) -> None:
    """What the disk cache keeps for a file's sake depends on that."""
    assert outcome.main_thread["other file's absence"] == outcome.later_thread["other file's absence"] == "ENOENT"


def test_nothing_is_dumped_and_no_privilege_is_gained(outcome: Outcome) -> None:
    assert "no core dumps" in outcome.claimed
    assert (outcome.most_core_bytes, outcome.is_dumpable, outcome.may_gain_privileges) == (0, False, False)


def test_all_is_claimed_that_the_kernel_offers(outcome: Outcome) -> None:
    assert ("no foreign files" in outcome.claimed) == (landlock.version() >= 1 and not sandbox.gpu_devices())
    assert ("no writes" in outcome.claimed) == (landlock.version() >= landlock.FORBIDS_WRITING)
    assert [word for word in get_args(Protection) if word in outcome.claimed] == list(outcome.claimed)


def test_nothing_is_claimed_of_files_when_a_thread_is_free_already(tmp_path: Path) -> None:
    """numpy starts threads unless it is told not to."""
    outcome = shut_in(tmp_path, {**environment(), "OPENBLAS_NUM_THREADS": "2"})
    assert not {"no writes", "no foreign files"} & set(outcome.claimed)


def test_a_worker_is_not_told_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLAIT_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "LANG"):
        monkeypatch.setenv(name, "said")
    assert {name for name, value in environment().items() if value == "said"} == {"LANG"}
