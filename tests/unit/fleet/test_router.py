"""Which replica gets a request."""

from hypothesis import given
from hypothesis import strategies as st

from plait.fleet.router import BLOCK_CHARACTERS, MOST_BLOCKS, RoundRobin, Router, heads
from plait.protocol import ChatMessage, ChatPrompt, RawPrompt, TokenPrompt

SLACK = 4


def words(name: str, n_blocks: int = 4) -> RawPrompt:
    return RawPrompt(name.ljust(BLOCK_CHARACTERS * n_blocks, "."))


def test_who_knows_the_prompt_gets_it_again() -> None:
    router = Router(3, SLACK)
    idle = {0: 0, 1: 0, 2: 0}
    first = {name: router.choose(words(name), idle) for name in "abc"}
    assert sorted(first.values()) == [0, 1, 2]
    assert {name: router.choose(words(name), idle) for name in "cba"} == first


def test_the_longest_known_prefix_wins() -> None:
    router = Router(2, SLACK)
    short, long = words("a", 2), RawPrompt(words("a", 2).text + words("b", 2).text)
    assert router.choose(short, {0: 0}) == 0
    assert router.choose(long, {1: 0}) == 1
    assert router.choose(RawPrompt(long.text + "more"), {0: 0, 1: SLACK}) == 1


def test_who_is_much_busier_is_spared() -> None:
    router = Router(2, SLACK)
    assert router.choose(words("a"), {0: 0}) == 0
    assert router.choose(words("a"), {0: SLACK, 1: 0}) == 0
    assert router.choose(words("a"), {0: SLACK + 1, 1: 0}) == 1


def test_strangers_go_to_the_least_busy_and_round_among_equals() -> None:
    router = Router(3, SLACK)
    assert router.choose(RawPrompt("short"), {0: 2, 1: 1, 2: 2}) == 1
    assert [router.choose(RawPrompt("short"), {0: 0, 1: 0, 2: 0}) for _ in range(4)] == [2, 0, 1, 2]


def test_by_turns_neither_the_prompt_nor_the_load_matters() -> None:
    router = RoundRobin(3)
    assert [router.choose(words("a"), {0: 9, 1: 0, 2: 4}) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_by_turns_who_is_not_there_is_passed_over() -> None:
    router = RoundRobin(3)
    assert [router.choose(words("a"), loads) for loads in ({0: 0, 2: 0}, {0: 0, 2: 0}, {0: 0, 1: 0, 2: 0})] == [0, 2, 0]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.dictionaries(st.integers(0, 3), st.integers(0, 20), min_size=1)))
)
def test_it_chooses_among_those_who_are_there_and_none_that_is_much_busier(
    requests: list[tuple[str, dict[int, int]]],
) -> None:
    router = Router(4, SLACK)
    for name, loads in requests:
        chosen = router.choose(words(name), loads)
        assert loads[chosen] <= min(loads.values()) + SLACK


@given(st.text(min_size=0, max_size=2000), st.text(max_size=600), st.text(max_size=600))
def test_heads_are_equal_as_far_as_the_prompts_are(common: str, one: str, other: str) -> None:
    shared = len(common) // BLOCK_CHARACTERS
    assert heads(RawPrompt(common + one))[:shared] == heads(RawPrompt(common + other))[:shared]
    assert len(heads(RawPrompt(common))) == shared


def test_heads_differ_after_the_first_difference() -> None:
    one, other = heads(words("a", 3)), heads(words("b", 3))
    assert not set(one) & set(other)


def test_every_kind_of_prompt_has_heads() -> None:
    assert len(heads(TokenPrompt(list(range(130))))) == 2
    assert len(heads(ChatPrompt([ChatMessage("user", "x" * 600)]))) == 2
    assert len(heads(words("", MOST_BLOCKS + 9))) == MOST_BLOCKS


def test_the_oldest_is_forgotten() -> None:
    router = Router(2, SLACK)
    prompts = [words(f"{i} ", MOST_BLOCKS) for i in range(300)]
    for prompt in prompts:
        router.choose(prompt, {0: 0})
    assert router.choose(prompts[-1], {0: 1, 1: 0}) == 0
    assert router.choose(prompts[0], {0: 1, 1: 0}) == 1
