"""`python -m plait.bitnet SOURCE TARGET HEAD LAYOUT`: converts in a process of its own, for a gateway without numpy.

Says on standard output how far it is, in bytes done and in all; what keeps it from it comes last, after `!`.
"""

import signal
import sys
import time
from pathlib import Path

import msgspec

from plait.bitnet.target import convert
from plait.config import BitNetHead, I2SLayout
from plait.errors import ModelLoadFailed

PAUSE_SECONDS = 0.1
"""Between two reports."""


class Report:
    """Writes how far it is, now and then. When nobody reads, the process ends, as by any signal."""

    def __init__(self) -> None:
        self._last = 0.0

    def tell(self, n_done: int, n_total: int) -> None:
        now = time.monotonic()
        if n_done == n_total or now - self._last >= PAUSE_SECONDS:
            self._last = now
            say(f"{n_done} {n_total}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    source, target, head, layout = sys.argv[1:]
    report = Report()
    try:
        convert(
            Path(source),
            Path(target),
            msgspec.convert(head, BitNetHead),
            msgspec.convert(layout, I2SLayout),
            report.tell,
        )
    except ModelLoadFailed as error:
        say("! " + " ".join(error.message.split()))
        sys.exit(1)


if __name__ == "__main__":
    main()
