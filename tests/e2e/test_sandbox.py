"""The worker that serves is shut in, with all of its threads."""

from pathlib import Path

from plait.worker import landlock
from tests.serving import Server


def test_every_thread_of_the_worker_is_shut_in(server: Server) -> None:
    (model,) = server.get("/admin/models").json()
    (replica,) = model["replicas"]
    threads = [path.read_text() for path in Path(f"/proc/{replica['pid']}/task").glob("*/status")]
    assert len(threads) >= 3, "its I/O, its tokenizer, its engine"
    for line in ("NoNewPrivs:\t1\n", "Seccomp:\t2\n"):
        assert all(line in status for status in threads)
    can_forbid = landlock.version() >= landlock.FORBIDS_WRITING
    assert ("no writes" in model["info"]["protections"]) == can_forbid
