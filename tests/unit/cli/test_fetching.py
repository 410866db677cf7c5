"""While a model is fetched, a terminal shows a bar and a log gets two lines."""

from io import StringIO

import pytest
from rich.console import Console

from plait.cli.fetching import progress


def shown(*, is_terminal: bool) -> str:
    """What is seen of two files of 3 MiB."""
    out = StringIO()
    with progress(Console(file=out, force_terminal=is_terminal, width=100)) as tell:
        for file in ("a.gguf", "b[0].gguf"):
            for n_done in range(4):
                tell(file, n_done * 2**20, 3 * 2**20)
    return out.getvalue()


def test_a_log_gets_a_line_at_the_start_and_one_at_the_end() -> None:
    assert shown(is_terminal=False).splitlines() == [
        "fetching a.gguf, 3 MiB",
        "fetched a.gguf",
        "fetching b[0].gguf, 3 MiB",
        "fetched b[0].gguf",
    ]


@pytest.mark.parametrize("words", ["a.gguf", "b[0].gguf", "3.0/3.0 MiB", "0:00:00"])
def test_a_terminal_gets_a_bar_with_the_time_left(words: str) -> None:
    assert words in shown(is_terminal=True)


def test_a_terminal_is_left_alone_when_nothing_is_fetched() -> None:
    out = StringIO()
    with progress(Console(file=out, force_terminal=True)):
        pass
    assert out.getvalue() == ""


def test_a_size_that_is_not_known_is_said() -> None:
    out = StringIO()
    with progress(Console(file=out, force_terminal=False, width=100)) as tell:
        tell("a.gguf", 5, None)
    assert out.getvalue() == "fetching a.gguf, unknown size\n"
