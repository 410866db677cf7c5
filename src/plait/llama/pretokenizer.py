"""Texts that libllama would not survive cutting into words, or not soon: they are refused before it sees them. Pure.

Most vocabularies cut with `std::regex`, which calls itself for each character of a match. Three of them, named by the
file's `tokenizer.ggml.pre`, also look at the rest of a run again from each of its characters.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from plait.errors import NotTokenizable

MAX_RUN = 400_000
"""Characters of a line, or of white space. `std::regex` takes 330 bytes of stack for each character of a match: no
match holds a line break before its trailing white space, so none needs half of the 512 MiB that the worker's tokenizer
has."""

_TOO_LONG_RUN = re.compile(rf"(?<![^\n])[^\n]{{{MAX_RUN + 1}}}|(?<!\s)\s{{{MAX_RUN + 1}}}")

LONG = 64
"""A run of so many characters takes no longer than as many others."""


class Slow(NamedTuple):
    """Runs whose cutting takes as long as the square of their length."""

    name: str
    runs: re.Pattern[str]
    """Those that are longer than `LONG`."""
    most: int
    """Of the squares of all of them: a core is busy with so many for about a second."""


SLOW = {
    "superbpe": Slow("digits", re.compile(rf"(?<![0-9])[0-9]{{{LONG + 1},}}"), 10_000_000),
    # What goes before a letter or a mark that these name, or ends a line, is found at once.
    "deepseek-llm": Slow(
        "white space", re.compile(rf"(?<![^\S\r\n])[^\S\r\n]{{{LONG + 1},}}+(?=[^\r\n!-/:-~])"), 10_000_000
    ),
    "jais-2": Slow("white space", re.compile(rf"(?<!\s)\s{{{LONG + 1},}}"), 2_000_000_000),
}


def check_depth(text: str) -> None:
    """Raise `NotTokenizable` for what needs more stack than there is."""
    if _TOO_LONG_RUN.search(text):
        raise NotTokenizable(f"more than {MAX_RUN} characters without a line break, or of nothing but white space")


def check_pace(texts: Sequence[str], slow: Slow, param: str) -> None:
    """Raise `NotTokenizable` for a prompt of these texts if others would have to wait too long for it."""
    squares = sum((run.end() - run.start()) ** 2 for text in texts for run in slow.runs.finditer(text))
    if squares > slow.most:
        raise NotTokenizable(
            f"this model's tokenizer would take too long for so many {slow.name} in a row; "
            f"{int(slow.most**0.5)} are the most, and fewer if there are several such runs",
            param=param,
        )
