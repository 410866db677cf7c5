"""Lines on standard error."""

import logging
from collections.abc import Iterator

import pytest

from plait import log


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_bears_its_requests_id(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "gateway")
    with log.one_request() as request_id:
        logging.getLogger("x").info("within")
    logging.getLogger("x").info("outside")
    within, outside = capsys.readouterr().err.splitlines()
    assert f" {request_id} within" in within
    assert request_id not in outside
    assert "gateway[" in outside


def test_what_is_less_severe_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("warning", "worker")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_ids_do_not_repeat() -> None:
    with log.one_request() as one, log.one_request() as other:
        assert one != other == log.request_id()
    assert log.request_id() == ""
