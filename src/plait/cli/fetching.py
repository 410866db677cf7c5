"""Models that must be fetched or converted before a command can use them, and the bar that shows how that goes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from plait.config import Config, format_bytes
from plait.fleet import conversion
from plait.fleet.progress import Progress
from plait.fleet.registry import resolve


class Words(NamedTuple):
    """What is said of a file in a log."""

    begins: str
    has_ended: str


FETCHING, CONVERTING = Words("fetching", "fetched"), Words("converting", "converted")


def fetch(models: Sequence[str], settings: Config) -> None:
    """Brings here what is not here yet, so that a fleet will find it. Raises what keeps it from that."""
    console = Console(stderr=True)
    for model in models:
        with progress(console) as tell:
            path = resolve(model, tell).path
        with progress(console, CONVERTING) as tell:
            conversion.ready(path, settings, tell)


@contextmanager
def progress(console: Console, words: Words = FETCHING) -> Iterator[Progress]:
    """A bar for each file with its rate and the time that is left; a line at its start and end when nobody watches."""
    if not console.is_terminal:
        yield _Lines(console, words).tell
        return
    bars = _Bars(console)
    try:
        yield bars.tell
    finally:
        bars.close()


class _Bars:
    """What a terminal shows of it; nothing until there is something to show."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True)
        self.bars = Bars(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
        self.tasks: dict[str, TaskID] = {}

    def tell(self, file: str, n_done: int, n_total: int | None) -> None:
        if file not in self.tasks:
            self.bars.start()
            self.tasks[file] = self.bars.add_task(file)
        self.bars.update(self.tasks[file], completed=n_done, total=n_total)

    def close(self) -> None:
        if self.tasks:
            self.bars.stop()


class _Lines:
    """What a log can show of it."""

    def __init__(self, console: Console, words: Words) -> None:
        self.console = console
        self.words = words
        self.begun: set[str] = set()

    def tell(self, file: str, n_done: int, n_total: int | None) -> None:
        size = format_bytes(n_total) if n_total else "unknown size"
        if file not in self.begun:
            self.begun.add(file)
            self.console.print(f"{self.words.begins} {file}, {size}", soft_wrap=True, markup=False)
        if n_done == n_total:
            self.console.print(f"{self.words.has_ended} {file}", soft_wrap=True, markup=False)
