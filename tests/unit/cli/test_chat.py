"""A conversation in the terminal: what is typed, what is asked of the fleet, and what is written."""

from collections.abc import Iterable, Iterator

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from plait.cli.chat import HELP, Chat
from plait.errors import Overloaded
from plait.protocol import ChatPrompt, Sampling, Text
from tests.fakes.fleet import FakeFleet, Script, done, play, say, started


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


def turns(fleet: FakeFleet) -> list[tuple[str, str]]:
    """What the model was last told, turn by turn."""
    prompt = fleet.asked[-1][1].prompt
    assert isinstance(prompt, ChatPrompt)
    return [(turn.role, turn.content) for turn in prompt.messages]


def hear(portal: BlockingPortal, lines: Iterable[str], script: Script | None = None, system: str = "") -> FakeFleet:
    fleet = FakeFleet(script or say("Hel", "lo"))
    chat = Chat(portal, fleet, system, Sampling(seed=1, temperature=0.5), 7)
    for line in lines:
        chat.hear(line)
    assert fleet.n_running == 0
    return fleet


def test_an_answer_is_written(portal: BlockingPortal, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = hear(portal, ["Hi"])
    assert capsys.readouterr().out == "Hello\n"
    assert turns(fleet) == [("user", "Hi")]
    assert (fleet.request.sampling, fleet.request.max_tokens) == (Sampling(seed=1, temperature=0.5), 7)


def test_the_end_of_an_answer_that_was_held_back_is_written(
    portal: BlockingPortal, capsys: pytest.CaptureFixture[str]
) -> None:
    hear(portal, ["Hi"], play(started(), Text(0, 0, "Hel", [5]), done(0, 1, text="lo")))
    assert capsys.readouterr().out == "Hello\n"


def test_the_conversation_is_remembered(portal: BlockingPortal) -> None:
    fleet = hear(portal, ["One", "Two"], system="Be brief.")
    assert turns(fleet) == [("system", "Be brief."), ("user", "One"), ("assistant", "Hello"), ("user", "Two")]


def test_clear_forgets_it_but_not_the_system_prompt(portal: BlockingPortal) -> None:
    fleet = hear(portal, ["/system Rhyme.", "One", "/clear", "Two"])
    assert turns(fleet) == [("system", "Rhyme."), ("user", "Two")]


def test_an_unknown_command_is_not_asked(portal: BlockingPortal, capsys: pytest.CaptureFixture[str]) -> None:
    assert hear(portal, ["/help", "/clear all"]).asked == []
    assert capsys.readouterr().out == f"{HELP}\n" * 2


def test_what_failed_is_said_and_forgotten(portal: BlockingPortal, capsys: pytest.CaptureFixture[str]) -> None:
    steps = iter([play(Overloaded("the queue is full")), say("Hello")])
    fleet = hear(portal, ["One", "Two"], lambda request: next(steps)(request))
    assert capsys.readouterr().err == "plait: the queue is full\n"
    assert turns(fleet) == [("user", "Two")]
