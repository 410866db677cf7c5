"""How both halves log: short lines on standard error, each with the id of the request that it is about.

A gateway's request id lives in a context variable: a task inherits it from the one that made it, and log calls need
not carry it.
"""

import contextlib
import logging
import secrets
import sys
from collections.abc import Iterator
from contextvars import ContextVar

_request_id: ContextVar[str] = ContextVar("request_id", default="")


def setup(level: str, process: str) -> None:
    """From now on this process logs what is at least as severe as `level`, under the name `process`."""
    handler = logging.StreamHandler(sys.stderr)
    line = f"%(asctime)s %(levelname).1s {process}[%(process)d]%(about)s %(message)s"
    handler.setFormatter(logging.Formatter(line, datefmt="%H:%M:%S"))
    handler.addFilter(_name_request)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def request_id() -> str:
    """The id of the request that is being answered; empty outside of one."""
    return _request_id.get()


@contextlib.contextmanager
def one_request() -> Iterator[str]:
    """Within the block, what is logged bears a new request id."""
    token = _request_id.set(secrets.token_hex(8))
    try:
        yield _request_id.get()
    finally:
        _request_id.reset(token)


def _name_request(record: logging.LogRecord) -> bool:
    record.about = f" {_request_id.get()}" if _request_id.get() else ""
    return True
