"""What the engine relies on when requests want other adapters, of the fake context and of libllama's alike."""

from plait.engine.sequence import Adapters
from tests.contract.conftest import Subject
from tests.contract.test_context import PROMPT, read

BEGUN: Adapters = ()
SETS: list[Adapters] = [BEGUN, (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.25, 0.5)]


def bits(subject: Subject, adapters: Adapters) -> object:
    """What is known after PROMPT."""
    subject.context.trim(1, 0)
    subject.context.use_adapters(adapters)
    read(subject, 1, PROMPT)
    return subject.bits(0)


def by_turns(subject: Subject, *sets: Adapters) -> list[list[int]]:
    """What follows PROMPT with each of these, computed a token of each at a time."""
    texts = []
    for stream, adapters in enumerate(sets):
        subject.context.trim(stream, 0)
        subject.context.use_adapters(adapters)
        texts.append([*PROMPT, read(subject, stream, PROMPT)])
    for _ in range(8):
        for stream, adapters in enumerate(sets):
            text = texts[stream]
            subject.context.use_adapters(adapters)
            subject.context.decode([(stream, len(text) - 1, text[-1:], True)])
            text.append(subject.best(0))
    return [text[len(PROMPT) :] for text in texts]


def test_adapters_change_what_is_computed_and_going_back_restores_it(adapted: Subject) -> None:
    first = [bits(adapted, adapters) for adapters in SETS]
    assert len(set(first)) == len(SETS)
    assert [bits(adapted, adapters) for adapters in reversed(SETS)] == first[::-1]


def test_adapters_that_no_decode_used_leave_no_trace(adapted: Subject) -> None:
    first = bits(adapted, SETS[2])
    adapted.context.use_adapters(SETS[3])
    assert bits(adapted, SETS[2]) == first


def test_streams_with_other_adapters_take_turns(adapted: Subject) -> None:
    alone = [by_turns(adapted, adapters)[0] for adapters in SETS[1:4]]
    assert by_turns(adapted, *SETS[1:4]) == alone
    assert alone[0] != alone[1] != alone[2]
