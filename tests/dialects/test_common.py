"""What dialects share: the names of sampling fields, weaving several answers into one stream, folding it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.dialects.common import SamplingFields, find, fold, weave
from plait.errors import GenerationFailed, ModelNotFound, Overloaded
from plait.protocol import Answer, Done, RawPrompt, Request, Sampling, Text
from tests.fakes.fleet import FakeFleet, Script, Step, done, play, say, started

pytestmark = pytest.mark.anyio


def answers(*scripts: Script, n: int = 1) -> tuple[list[FakeFleet], AsyncGenerator[list[Answer], None]]:
    """One prompt's answer from each script, woven; and who gives them."""
    fleets = [FakeFleet(script) for script in scripts]
    return fleets, weave([fleet.generate(None, Request(prompt=RawPrompt("a"), n=n)) for fleet in fleets], n)


def test_sampling_has_the_same_names_on_the_wire_and_within() -> None:
    assert SamplingFields.__struct_fields__ == Sampling.__struct_fields__


def test_what_is_not_said_is_the_default() -> None:
    assert SamplingFields(top_k=5).sampling() == Sampling(top_k=5)


def test_without_a_name_the_first_model_is_meant() -> None:
    fleet = FakeFleet(names=["a", "b"])
    assert [find(fleet, name).name for name in (None, "a", "b")] == ["a", "a", "b"]


@pytest.mark.parametrize(("names", "name"), [(["a"], "b"), (["a"], ""), ([], None)])
def test_a_model_that_is_not_served_is_not_found(names: list[str], name: str | None) -> None:
    with pytest.raises(ModelNotFound):
        find(FakeFleet(names=names), name)


async def test_what_comes_at_once_is_one_batch() -> None:
    pause = asyncio.Event()
    first: list[Answer] = [started(), Text(0, 0, "a", [1]), Text(0, 1, "b", [2])]
    second: list[Answer] = [done(0, 1), done(1, 1)]
    _, batches = answers(play(*first, pause, *second), n=2)
    async with aclosing(batches):
        assert await anext(batches) == first
        pause.set()
        assert await anext(batches) == second


async def test_nothing_is_lost_while_the_client_is_slow() -> None:
    pause = asyncio.Event()
    fleets, batches = answers(play(Text(0, 0, "a", [1]), pause, Text(0, 0, "b", [2]), done(0, 2)))
    async with aclosing(batches):
        await anext(batches)
        pause.set()
        while fleets[0].n_running:
            await anyio.lowlevel.checkpoint()
        assert await anext(batches) == [Text(0, 0, "b", [2]), done(0, 2)]


async def test_the_choices_of_later_prompts_are_numbered_on() -> None:
    _, batches = answers(say("a"), say("b"), say("c"), n=2)
    whole = await fold(batches, 6)
    assert whole.texts == ["a", "a", "b", "b", "c", "c"]


async def test_a_fast_prompt_does_not_wait_for_a_slow_one() -> None:
    pause = asyncio.Event()
    _, batches = answers(play(pause, done(0, 0)), say("fast"))
    async with aclosing(batches):
        assert Text(0, 1, "fast", [5]) in await anext(batches)


async def test_leaving_closes_every_answer() -> None:
    never = asyncio.Event()
    fleets, batches = answers(play(started(), never), play(never), say("a"))
    async with aclosing(batches):
        await anext(batches)
    assert [fleet.n_running for fleet in fleets] == [0, 0, 0]


async def test_being_cancelled_closes_every_answer() -> None:
    fleets, batches = answers(play(asyncio.Event()), play(asyncio.Event()))
    task = asyncio.create_task(fold(batches, 2))
    while not all(fleet.n_running for fleet in fleets):
        await anyio.lowlevel.checkpoint()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [fleet.n_running for fleet in fleets] == [0, 0]


async def test_one_failure_ends_all_after_what_came_before_it() -> None:
    fleets, batches = answers(play(started(), Overloaded("full")), play(asyncio.Event()))
    assert await anext(batches) == [started()]
    with pytest.raises(Overloaded, match="full"):
        await anext(batches)
    assert [fleet.n_running for fleet in fleets] == [0, 0]


async def test_of_two_failures_one_is_told_and_none_is_left_over() -> None:
    _, batches = answers(play(GenerationFailed("first")), play(GenerationFailed("second")))
    with pytest.raises(GenerationFailed):
        await anext(batches)


@given(st.lists(st.lists(st.text(max_size=3), max_size=6), min_size=1, max_size=4))
async def test_each_prompt_gets_its_own_text_in_its_own_order(texts: list[list[str]]) -> None:
    def script(said: list[str]) -> Script:
        steps: list[Step] = [Text(0, 0, text, [1]) for text in said]
        return play(started(), *steps, done(0, len(said)))

    _, batches = answers(*(script(said) for said in texts))
    whole = await fold(batches, len(texts))
    assert whole.texts == ["".join(said) for said in texts]
    assert whole.counts.n_prompt == 3 * len(texts)
    assert whole.counts.n_output == sum(map(len, texts))


async def test_every_choice_ends_with_its_own_reason() -> None:
    ends: list[Done] = [done(1, 2, "length", "y"), done(0, 1, "stop", "x")]
    _, batches = answers(play(started(), *ends), n=2)
    whole = await fold(batches, 2)
    assert (whole.texts, whole.reasons) == (["x", "y"], ["stop", "length"])
