"""A whole run, beside a server that is somewhere else; none of the rivals is installed."""

import json
from pathlib import Path

from benchmarks.bench_all import asked, run
from benchmarks.results import summary
from tests.unit.benchmarks.rival import Parrot


def test_a_quick_run_measures_plait_beside_another_server_and_writes_it_down(tmp_path: Path) -> None:
    with Parrot() as parrot:
        url = f"http://127.0.0.1:{parrot.server_port}"
        options = ["one", "--quick", "--as-is", "--rounds", "2", "--output", str(tmp_path), "--url", url]
        results = run(asked(options))
        parrot.shutdown()
    (measured,) = results.models[0].measured
    rounds = {each.label: len(each.rounds) for each in measured.contestants}
    assert rounds["Plait"] == rounds[url] == len(measured.limit.seconds) == 2
    assert rounds["Plait, default"] == 1
    assert not any(each.has_failed for each in measured.contestants)
    page = (tmp_path / "RESULTS.md").read_text()
    assert "llama-server, same slots |" in page
    assert "xllamacpp is not installed" in page
    assert (tmp_path / "plots" / "words-tiny-q4_0-one.svg").exists()
    assert json.dumps(summary("one", results))
