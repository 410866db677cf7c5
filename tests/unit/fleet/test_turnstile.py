"""Bounded admission."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import Overloaded
from plait.fleet.turnstile import Turnstile, measure
from plait.protocol import ChatMessage, ChatPrompt, Prompt, RawPrompt, TokenPrompt


class Clock:
    """Shows what it is set to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


ANY = 1_000_000
"""More tokens than any of these prompts has."""


def retry_after(turnstile: Turnstile, n_tokens: int = 1, tenant: str = "") -> int:
    with pytest.raises(Overloaded) as caught, turnstile.place(n_tokens, tenant):
        raise AssertionError("there was a place")
    assert caught.value.retry_after
    return caught.value.retry_after


def test_a_place_is_free_again_after_the_block() -> None:
    turnstile = Turnstile(1, ANY)
    with turnstile.place(1):
        assert not turnstile.is_empty.is_set()
        retry_after(turnstile)
    with turnstile.place(1):
        pass
    assert turnstile.is_empty.is_set()


def test_an_error_frees_the_place_too() -> None:
    turnstile = Turnstile(1, ANY)
    with pytest.raises(KeyError), turnstile.place(1):
        raise KeyError
    assert turnstile.is_empty.is_set()


@pytest.mark.parametrize(("seconds_each", "expected"), [(0.01, 1), (0.5, 2), (2.0, 8), (50.0, 60)])
def test_the_refused_come_back_when_those_inside_will_have_left(seconds_each: float, expected: int) -> None:
    """Four are inside, and one has left every so many seconds."""
    clock = Clock()
    turnstile = Turnstile(4, ANY, clock)
    for _ in range(20):
        with turnstile.place(1):
            clock.now += seconds_each
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(turnstile.place(1))
        assert retry_after(turnstile) == expected


def test_while_nobody_has_left_the_refused_come_back_late() -> None:
    turnstile = Turnstile(1, ANY)
    with turnstile.place(1):
        assert retry_after(turnstile) == 60


# ── by prompt tokens ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (TokenPrompt([7] * 9), 9),
        (RawPrompt("x" * 400), 101),
        (RawPrompt("", prefix=(1, 2)), 3),
        (ChatPrompt([ChatMessage("user", "x" * 20), ChatMessage("user", "x" * 20)]), 11),
    ],
)
def test_a_prompt_is_measured_without_a_tokenizer(prompt: Prompt, expected: int) -> None:
    assert measure(prompt) == expected


def test_prompts_that_wait_take_room_until_they_are_read() -> None:
    turnstile = Turnstile(9, 100)
    with turnstile.place(80) as first:
        retry_after(turnstile, 21)
        with turnstile.place(20):
            first.begin()
            first.begin()
            with turnstile.place(80):
                retry_after(turnstile)


def test_a_prompt_that_is_given_up_waits_no_longer() -> None:
    turnstile = Turnstile(9, 100)
    with turnstile.place(100):
        retry_after(turnstile)
    with turnstile.place(100):
        pass


def test_a_prompt_that_can_never_fit_is_let_in_when_no_other_waits() -> None:
    turnstile = Turnstile(9, 100)
    with turnstile.place(5000):
        retry_after(turnstile)


def test_the_refused_come_back_when_the_prompts_before_them_will_be_read() -> None:
    """A thousand tokens wait, and a hundred were read each second."""
    clock = Clock()
    turnstile = Turnstile(99, 1000, clock)
    for _ in range(20):
        with turnstile.place(100) as place:
            clock.now += 1
            place.begin()
    with turnstile.place(1000):
        assert retry_after(turnstile, 1) == 10


# ── tenants ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Crowd:
    """Tenants who come and go."""

    def __init__(self, n_places: int, n_tokens: int = ANY) -> None:
        self.clock = Clock()
        self.turnstile = Turnstile(n_places, n_tokens, self.clock)
        self.inside: dict[str, list[ExitStack]] = {}

    def come(self, tenant: str, n: int = 1, n_tokens: int = 1) -> int:
        """How many of so many requests get in."""
        mine = self.inside.setdefault(tenant, [])
        n_before = len(mine)
        for _ in range(n):
            place = ExitStack()
            try:
                place.enter_context(self.turnstile.place(n_tokens, tenant))
            except Overloaded:
                continue
            mine.append(place)
        return len(mine) - n_before

    def go(self, tenant: str, n: int = 1) -> None:
        for _ in range(n):
            self.inside[tenant].pop().close()


def test_the_only_key_that_ever_came_may_take_all() -> None:
    assert Crowd(80).come("a", 100) == 80


def test_a_key_that_is_alone_leaves_a_reserve_once_there_was_another() -> None:
    crowd = Crowd(80)
    crowd.come("b")
    crowd.go("b")
    assert crowd.come("a", 100) == 70


def test_who_holds_nothing_gets_a_place_of_the_reserve() -> None:
    crowd = Crowd(80)
    crowd.come("b")
    crowd.go("b")
    crowd.come("a", 100)
    assert [crowd.come(tenant) for tenant in "bcd"] == [1, 1, 1]


def test_a_key_that_fills_the_queue_makes_room_for_the_others_as_it_empties() -> None:
    """Each of two ends with half, though the first asks for more each time that one of its own has ended."""
    crowd = Crowd(80)
    crowd.come("a", 100)
    assert crowd.come("b") == 0
    for _ in range(40):
        crowd.go("a")
        crowd.come("a")
        crowd.come("b", 5)
    assert [len(crowd.inside[tenant]) for tenant in "ab"] == [40, 40]


def test_who_was_refused_counts_as_there_for_a_minute() -> None:
    crowd = Crowd(2)
    assert (crowd.come("a"), crowd.come("b"), crowd.come("c")) == (1, 1, 0)
    crowd.go("b")
    assert crowd.come("a") == 0
    crowd.clock.now += 61
    assert crowd.come("c") == 1


def test_prompts_that_wait_are_shared_alike() -> None:
    crowd = Crowd(1000, n_tokens=800)
    assert crowd.come("a", 100, n_tokens=10) == 80
    assert crowd.come("b", n_tokens=10) == 0
    crowd.go("a", 50)
    assert crowd.come("b", n_tokens=10) == 1
    assert crowd.come("a", 100, n_tokens=10) == 10
    assert crowd.come("b", 100, n_tokens=10) == 39


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_whoever_comes_and_goes_there_are_never_too_many_and_nobody_holds_more_than_his_part(
    n_places: int, moves: Sequence[tuple[str, bool]]
) -> None:
    crowd, held = Crowd(n_places), Counter[str]()
    for tenant, comes in moves:
        if comes:
            others = sum(n for name, n in held.items() if name != tenant)
            got_in = crowd.come(tenant)
            held[tenant] += got_in
            assert not got_in or held[tenant] == 1 or not others or held[tenant] <= n_places / 2
        elif held[tenant]:
            crowd.go(tenant)
            held[tenant] -= 1
        assert held.total() <= n_places
    for tenant, n in held.items():
        crowd.go(tenant, n)
    assert crowd.turnstile.is_empty.is_set()
