"""A journal is enough to go on from: whatever was told is known, and nothing is told twice."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from plait.fleet.journal import Journal, seeded
from plait.protocol import (
    MAX_CHOICES,
    AdapterScale,
    Done,
    Generate,
    Progress,
    Queued,
    RawPrompt,
    Request,
    Sampling,
    Started,
    Text,
    TokenPrompt,
)

ASKED = Request(prompt=RawPrompt("once"), n=2)


def begun() -> Journal:
    journal = Journal(ASKED)
    journal.note(Started(1, [5, 6]))
    return journal


def done(choice: int) -> Done:
    return Done(1, choice, "stop", 2, 1, 0.0, 0.0)


def test_a_request_that_nobody_began_is_asked_as_it_was() -> None:
    assert Journal(ASKED).order(7) == Generate(7, ASKED)


def test_one_that_was_begun_is_asked_with_what_is_known() -> None:
    journal = begun()
    journal.note(Text(1, 1, "a", [9]))
    journal.note(Text(1, 1, "b", [8, 7]))
    order = journal.order(7)
    assert order.request.prompt == TokenPrompt([5, 6])
    assert order.known == ((), (9, 8, 7))


def test_who_goes_on_does_so_with_the_adapters_that_were_asked_for() -> None:
    journal = Journal(structs.replace(ASKED, lora=(AdapterScale(0, 0.5),)))
    journal.note(Started(1, [5, 6]))
    assert journal.order(7).request.lora == (AdapterScale(0, 0.5),)


def test_a_choice_that_ended_is_not_asked_again() -> None:
    journal = begun()
    journal.note(done(0))
    assert journal.order(7).known == (None, ())
    assert not journal.is_over
    journal.note(done(1))
    assert journal.is_over


def test_a_client_hears_of_the_prompt_once() -> None:
    journal = Journal(ASKED)
    assert [journal.note(Started(i, [5])) for i in range(2)] == [True, False]


def test_reading_again_is_not_told_to_who_has_text() -> None:
    journal = begun()
    assert journal.note(Progress(1, 1, 2))
    journal.note(Text(1, 0, "a", [9]))
    assert not journal.note(Progress(1, 1, 2))


def test_only_who_waits_in_the_queue_is_not_blamed_for_a_death() -> None:
    journal = Journal(ASKED)
    for told, n_deaths in (((), 1), ((Queued(1),), 1), ((Queued(1), Started(1, [5])), 2)):
        journal.order(1)
        for event in told:
            journal.note(event)
        journal.mark()
        assert journal.n_deaths == n_deaths


def deaths(*n_tokens: int) -> list[int]:
    """Those that a request is blamed for, after each worker that died when it had got so many tokens further."""
    journal, counted = Journal(ASKED), []
    for n in n_tokens:
        journal.order(1)
        journal.note(Started(1, [5, 6]))
        for token in range(n):
            journal.note(Text(1, 0, "a", [token]))
        journal.mark()
        counted.append(journal.n_deaths)
    return counted


def test_who_gets_much_further_is_not_blamed_for_earlier_deaths() -> None:
    assert deaths(8, 8, 9, 8) == [1, 1, 1, 1]


def test_who_gets_a_little_further_each_time_is_blamed_all_the_same() -> None:
    assert deaths(1, 0, 7, 8, 1) == [1, 2, 3, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 99), max_size=3))), st.data())
def test_whatever_was_told_is_known(told: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    journal = begun()
    for choice, tokens in told:
        journal.note(Text(1, choice, "", tokens))
        if data.draw(st.booleans()):
            journal.order(2)
    for choice in (0, 1):
        assert journal.order(3).known[choice] == tuple(t for c, tokens in told for t in tokens if c == choice)


@given(st.integers(1, MAX_CHOICES))
def test_a_worker_always_gets_a_seed_that_every_choice_can_count_from(n: int) -> None:
    seed = seeded(Request(prompt=RawPrompt(""), n=n)).sampling.seed
    assert seed is not None
    assert 0 <= seed
    assert seed + n - 1 <= 2**32 - 2


def test_a_seed_that_was_asked_for_stays() -> None:
    request = Request(prompt=RawPrompt(""), sampling=Sampling(seed=7))
    assert seeded(request) == request
