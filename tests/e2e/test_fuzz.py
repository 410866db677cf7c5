"""Requests that a machine made up from `/openapi.json`, well-formed and not, and whether the answers keep to it.

What stands in for other programs is left out: those answer a bad request with a 500, and so must we.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import Server, serving

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "100")
"""The most requests that are drawn for one method of one path, besides those at the edges of what its types allow."""
N_REQUESTS = 6 * int(EXAMPLES)
"""At least so many there are in all: some paths take nothing that could be varied."""
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
OPTIONS = ("--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS), "--max-examples", EXAMPLES)
OWN = ("--include-tag", "admin", "--include-tag", "openai", "--exclude-path-regex", "^/openai/")
REPEATABLE = ("--seed", "1", "--generation-database", "none")
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(3600)
def test_no_made_up_request_gets_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    with serving("--threads", "1") as server:
        said = made_up_requests(server, tmp_path)
        assert server.metric("plait_worker_requests_total") > 50
    generated = re.search(r"(\d+) generated", said)
    assert generated and int(generated[1]) >= N_REQUESTS, said


def made_up_requests(server: Server, folder: Path) -> str:
    """What schemathesis says of its run; it must have found nothing."""
    command = (Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json")
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.e2e.made_up", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, "--no-color", *OPTIONS, *OWN, *REPEATABLE],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
