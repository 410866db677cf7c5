"""What a script can see of a benchmark."""

import json
from collections.abc import Iterator

import pytest

from benchmarks.report import Row, as_they_come, show

MET, MISSED, FREE = Row("a", 1.0, "s", "<= 1.0"), Row("b", 1.0, "s", ">= 2.0"), Row("c", 1.0, "s")


def test_a_missed_goal_is_an_exit_status_after_all_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        show("all", [MET, MISSED, FREE])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["met"] for row in told["rows"]] == [True, False, None]


def test_without_one_the_program_goes_on() -> None:
    show("all", [MET, FREE])


def test_a_row_is_told_before_the_next_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[Row]:
        yield MET
        assert capsys.readouterr().err == "a: 1 s\n"
        yield FREE

    assert as_they_come(rows()) == [MET, FREE]
