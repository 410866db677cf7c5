"""Which texts are refused because libllama would take too long to cut them into words."""

import pytest

from plait.errors import NotTokenizable
from plait.llama.pretokenizer import LONG, SLOW, check_pace

LONGEST = {name: int(slow.most**0.5) for name, slow in SLOW.items()}
"""Of a single run that is not refused."""


def is_refused(name: str, *texts: str) -> bool:
    try:
        check_pace(texts, SLOW[name], "prompt")
    except NotTokenizable as error:
        assert error.param == "prompt"
        return True
    return False


@pytest.mark.parametrize(
    ("name", "letter", "after"),
    [("superbpe", "7", ""), ("deepseek-llm", "\t", "7"), ("deepseek-llm", "\u3000", "字"), ("jais-2", " \n", "a")],
)
def test_a_run_has_a_longest_length(name: str, letter: str, after: str) -> None:
    longest = letter * (LONGEST[name] // len(letter))
    assert not is_refused(name, f"a{longest}{after}")
    assert is_refused(name, f"a{longest}{letter}{letter}{after}")


def test_runs_are_added_up_over_all_turns() -> None:
    run = "7" * 1000
    assert not is_refused("superbpe", *[f"{run}, {run}"] * 5)
    assert is_refused("superbpe", *[f"{run}, {run}"] * 5, run)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("superbpe", ("7" * LONG + " ") * 100_000),
        ("superbpe", "a" * 100_000 + " " * 100_000 + "٣" * 100_000),
        ("deepseek-llm", (" " * LONG + "7") * 100_000),
        ("deepseek-llm", " " * 100_000 + "a" + " " * 100_000 + "!" + " " * 100_000 + "\r\n" + " " * 100_000),
        ("deepseek-llm", "7" * 100_000),
        ("jais-2", "7" * 100_000 + (" " * 1000 + "a") * 1000),
    ],
)
def test_what_is_cut_quickly_is_not_refused(name: str, text: str) -> None:
    assert not is_refused(name, text)
