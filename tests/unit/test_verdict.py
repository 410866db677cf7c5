"""What follows from facts, and the name that it gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from plait.llama.fingerprint import fingerprint
from plait.llama.verdict import Padding, judge, padding
from plait.protocol import Facts, ProbeKey, Verdict

ALL = tuple(range(1, 9))
BEST = Facts(
    widths=ALL,
    classes=(ALL,),
    deep_alone=True,
    blocks=True,
    blocks_beside=True,
    tails_beside=True,
    ends=True,
    replay_chunk=63,
    any_threads=True,
)
TWO_CLASSES = ((8, 9, 12, 16), (2, 3, 4, 5, 6, 7), (1,))
KEY = ProbeKey(
    model="0f" * 16,
    library="1.0; 2.0; AVX = 1",
    cache_types=("f16", "f16"),
    rope=(0.0, 0.0),
    n_threads=(2, 2),
    n_ubatch=512,
    n_slots=8,
)


def test_where_all_is_equal_it_costs_nothing() -> None:
    assert judge(BEST, 8) == Verdict(
        reproducible="under load",
        pad_to=1,
        replay_chunk=63,
        blocks_together=True,
        tails_together=True,
        ends_decoded=False,
        any_threads=True,
    )


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"deep_alone": False}, "decode steps have at least 2 rows"),
        ({"classes": (ALL[1:], (1,))}, "decode steps have at least 2 rows"),
        ({"classes": (ALL[4:], ALL[:4])}, "decode steps have at least 5 rows"),
        ({"classes": (ALL[:2], ALL[2:4], ALL[5:])}, "decode steps have at least 6 rows"),
        ({"blocks_beside": False}, "blocks of a prompt are computed by themselves"),
        ({"tails_beside": False}, "a prompt's last rows are computed by themselves"),
        ({"ends": False}, "a prompt's last token is decoded"),
        ({"replay_chunk": 1}, "known output is decoded again, token by token"),
    ],
)
def test_what_is_not_equal_has_its_price(fact: dict[str, object], words: str) -> None:
    verdict = judge(structs.replace(BEST, **fact), 8)
    assert (verdict.reproducible, verdict.reason) == ("under load, padded", words)


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"blocks": False}, "how it is cut into chunks"),
        ({"cut_short": "no time"}, "not all was measured: no time"),
        ({"classes": ()}, "no number helps"),
        ({"classes": (ALL[:7],)}, "no number helps"),
        ({"widths": ALL[:7]}, "no number helps"),
    ],
)
def test_what_nothing_helps_against_is_refused(fact: dict[str, object], words: str) -> None:
    verdict = judge(structs.replace(BEST, **fact), 8)
    assert verdict.reproducible == "no"
    assert words in verdict.reason


def test_nothing_is_promised_of_what_was_not_measured() -> None:
    assert judge(Facts(), 1).reproducible == "no"


@pytest.mark.parametrize(("n_slots", "n"), [(1, 2), (4, 2), (7, 2), (8, 8), (16, 8), (17, None)])
def test_steps_are_padded_no_further_than_the_slots_need(n_slots: int, n: int | None) -> None:
    widths = (*ALL, 9, 12, 16)
    found = padding(structs.replace(BEST, widths=widths, classes=TWO_CLASSES), n_slots)
    assert found == (n and Padding(n, 1))


@pytest.mark.parametrize(("n_slots", "expected"), [(3, (1, 1)), (4, (4, 1)), (9, (8, 4)), (16, (8, 4)), (17, None)])
def test_steps_can_be_padded_to_whole_groups_of_rows(n_slots: int, expected: tuple[int, int] | None) -> None:
    """Kernels that take rows by fours: a fifth is computed otherwise than the first four."""
    facts = structs.replace(BEST, widths=(*ALL, 9, 11, 12, 15, 16), classes=((8, 12, 16), (4,), (1, 2, 3)))
    assert padding(facts, n_slots) == expected


def test_whole_groups_are_said_in_the_price() -> None:
    facts = structs.replace(BEST, widths=(*ALL, 9, 11, 12, 15, 16), classes=((8, 12, 16), (4,), (1, 2, 3)))
    verdict = judge(facts, 16)
    assert verdict.reason == "decode steps have at least 8 rows, and a multiple of 4"
    assert [verdict.n_rows(n) for n in (1, 8, 9, 12, 13)] == [8, 8, 12, 12, 16]


@given(ends=st.sets(st.integers(1, 8)), lost=st.sets(st.integers(1, 8)), n_slots=st.integers(1, 8), deep=st.booleans())
def test_all_padded_steps_are_of_one_class(ends: set[int], lost: set[int], n_slots: int, deep: bool) -> None:
    """Classes are runs of widths that end at `ends`, without those that are `lost`."""
    runs: list[list[int]] = [[]]
    for width in ALL:
        runs[-1] += [width] * (width not in lost)
        runs += [[]] * (width in ends)
    facts = structs.replace(BEST, classes=tuple(map(tuple, filter(None, runs))), deep_alone=deep)
    verdict = judge(facts, n_slots)
    if verdict.reproducible != "no":
        steps = {verdict.n_rows(n) for n in range(1, n_slots + 1)}
        assert deep or min(steps) > 1
        assert any(steps <= set(widths) for widths in facts.classes)


def test_a_fingerprint_is_the_same_for_the_same() -> None:
    said = fingerprint(KEY, BEST, judge(BEST, 8))
    assert said == fingerprint(structs.replace(KEY, n_slots=4, n_ubatch=256), BEST, judge(BEST, 4))
    assert said.startswith("fp_")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "f0" * 16},
        {"adapters": (("ab" * 16, "0.5"),)},
        {"library": "1.0; 2.0; AVX = 0"},
        {"cache_types": ("f16", "q8_0")},
        {"rope": (0.0, 0.5)},
    ],
)
def test_a_fingerprint_is_of_all_that_decides(change: dict[str, object]) -> None:
    verdict = judge(BEST, 8)
    assert fingerprint(structs.replace(KEY, **change), BEST, verdict) != fingerprint(KEY, BEST, verdict)


def test_a_fingerprint_is_of_the_class_of_decode_steps() -> None:
    said = {fingerprint(KEY, BEST, structs.replace(judge(BEST, 8), pad_to=n)) for n in (1, 2, 8)}
    assert len(said) == 3


@pytest.mark.parametrize("any_threads", [True, False])
def test_threads_belong_to_a_fingerprint_where_they_make_a_difference(any_threads: bool) -> None:
    facts = structs.replace(BEST, any_threads=any_threads)
    said = {fingerprint(structs.replace(KEY, n_threads=(n, n)), facts, judge(facts, 8)) for n in (1, 2)}
    assert len(said) == (1 if any_threads else 2)


def test_an_unknown_model_has_no_fingerprint() -> None:
    assert fingerprint(structs.replace(KEY, model=""), BEST, judge(BEST, 8)) == ""
