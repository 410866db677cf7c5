"""What one step does, and what sharing saves."""

from collections.abc import Callable
from collections.abc import Sequence as Rows
from itertools import pairwise

import pytest

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.scheduler import Batch
from plait.engine.sequence import BLOCK, DEEP, Group, Sequence
from plait.errors import GenerationFailed
from tests.fakes.context import N_THREADS, FakeContext
from tests.fakes.listener import Notebook
from tests.unit.engine.workload import alone


def make(n_slots: int, context: FakeContext | None = None, *, is_continuous: bool = True) -> Engine:
    pace = Pace(target=0.1, n_batch=512, n_ubatch=512)
    return Engine(context or FakeContext(n_slots), n_slots, pace, is_continuous=is_continuous)


def ask(engine: Engine, prompt: list[int], n: int = 1, max_tokens: int = 4, *, shares: bool = True) -> list[Notebook]:
    assert isinstance(engine.context, FakeContext)
    group, heard = Group(shares), [Notebook() for _ in range(n)]
    for choice in range(n):
        Sequence(list(prompt), group, heard[choice], engine.context.sampler(choice), max_tokens)
    engine.submit(group)
    return heard


def run(engine: Engine) -> None:
    for _ in range(1000):
        if engine.is_idle:
            return
        engine.step()
    raise AssertionError("never idle")


def words(n: int, seed: int = 1) -> list[int]:
    return [(i * 7919 + seed) % 997 for i in range(n)]


def test_many_continuations_cost_one_prefill() -> None:
    engine = make(4)
    ask(engine, words(500), n=8, max_tokens=3)
    run(engine)
    assert engine.counts.prompt_tokens == 500
    assert engine.counts.output_tokens == 24


class ByFours(FakeContext):
    """Computes four rows in 10 ms of its own clock, and each that is left over in 10 ms more."""

    def decode(self, spans: Rows[tuple[int, int, list[int], bool]]) -> None:
        super().decode(spans)
        fours, others = divmod(sum(len(tokens) for _, _, tokens, _ in spans), 4)
        self.now += 0.01 * (fours + others)

    now = 0.0


def test_a_step_has_rows_for_nobody_once_that_is_known_to_be_faster() -> None:
    context = ByFours(4)
    engine = Engine(context, 4, Pace(target=0.1, n_batch=512, n_ubatch=512), clock=lambda: context.now)
    for i, max_tokens in enumerate((20, 40, 40, 40)):
        ask(engine, words(70, seed=i), max_tokens=max_tokens)
    run(engine)
    widths = [len(streams) for _, streams in context.calls[-20:]]
    assert widths[:5] == [3] * 5
    assert set(widths[5:]) == {4}


class SlowlyCopied(FakeContext):
    """Each copy takes 15 ms of its own clock; decoding none."""

    def copy(self, src: int, dst: int, n: int) -> None:
        super().copy(src, dst, n)
        self.now += 0.015

    now = 0.0


def slowly_copied(n_slots: int) -> Engine:
    context = SlowlyCopied(n_slots)
    return Engine(context, n_slots, Pace(target=0.1, n_batch=512, n_ubatch=512), clock=lambda: context.now)


def test_choices_of_one_request_begin_in_one_step_however_long_copies_take() -> None:
    engine = slowly_copied(8)
    ask(engine, words(30), n=8)
    engine.step()
    engine.step()
    assert engine.slots.n_writing == 8


def test_who_writes_does_not_wait_for_another_requests_choices_to_begin() -> None:
    engine = slowly_copied(8)
    ask(engine, words(30, seed=2), max_tokens=20)
    engine.step()
    ask(engine, words(30), n=7, max_tokens=20)
    n_begun = []
    while engine.slots.n_owned < 8:
        engine.step()
        n_begun.append(engine.slots.n_owned)
    assert [after - before for before, after in pairwise(n_begun)] == [2, 2, 2], "two take 30 ms"


def test_even_a_short_prompt_is_computed_once_for_many_continuations() -> None:
    engine = make(4)
    ask(engine, words(5), n=8, max_tokens=3)
    run(engine)
    assert engine.counts.prompt_tokens == 5


def test_equal_prompts_that_arrive_together_are_computed_once() -> None:
    engine = make(16)
    for i in range(48):
        ask(engine, words(1000) + words(20, seed=i + 2))
    run(engine)
    assert engine.counts.prompt_tokens == 1000 + 48 * 20


def test_who_waits_for_a_prefix_gets_all_of_it() -> None:
    """Also where a step ends a few tokens before the prefix does, as here at 992."""
    engine = Engine(FakeContext(2), 2, Pace(target=0.1, n_batch=BLOCK, n_ubatch=BLOCK))
    for seed in (2, 3):
        ask(engine, words(1000) + words(20, seed))
    run(engine)
    assert engine.counts.prompt_tokens == 1000 + 2 * 20


def test_a_private_request_neither_takes_nor_leaves() -> None:
    engine = make(2)
    first = ask(engine, words(200), shares=False)
    run(engine)
    second = ask(engine, words(200))
    run(engine)
    assert first[0].n_cached == second[0].n_cached == 0


def test_a_conversation_goes_on_in_its_own_slot() -> None:
    context = FakeContext(3)
    engine = make(3, context)
    ask(engine, words(300))
    run(engine)
    (again,) = ask(engine, context.cells[0] + words(10, seed=5))
    run(engine)
    assert again.n_cached == 303
    assert context.n_copied == 0


def test_the_least_recently_used_prefix_is_given_up() -> None:
    engine = make(2)
    for seed in (1, 2, 1, 3, 1):
        (heard,) = ask(engine, words(100, seed))
        run(engine)
    assert heard.n_cached == 99


def test_leaving_frees_the_slot_before_the_next_step() -> None:
    engine = make(1)
    ask(engine, words(10), max_tokens=100)
    (follower,) = ask(engine, words(12, seed=3))
    engine.step()
    engine.cancel(engine.slots.readers()[0].group if engine.slots.readers() else engine.slots.writers()[0].group)
    engine.step()
    assert follower.n_cached is not None


def test_a_request_with_many_members_does_not_starve_a_newcomer() -> None:
    engine = make(4)
    ask(engine, words(40), n=40, max_tokens=10)
    for _ in range(3):
        engine.step()
    (newcomer,) = ask(engine, words(50, seed=9), max_tokens=1)
    for _ in range(15):
        engine.step()
    assert newcomer.reason == "length"


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    engine = make(2)
    (long,) = ask(engine, words(5000))
    engine.step()
    (short,) = ask(engine, words(60, seed=4), max_tokens=1)
    engine.step()
    assert short.reason == "length"
    assert not long.tokens


def test_writers_get_a_token_in_every_step_while_a_long_prompt_is_read() -> None:
    engine = make(2)
    (writer,) = ask(engine, words(10), max_tokens=100)
    engine.step()
    ask(engine, words(1000, seed=4))
    for n in range(2, 10):
        engine.step()
        assert len(writer.tokens) == n


def test_of_a_deep_prompts_short_rest_a_step_beside_writers_takes_half_a_block() -> None:
    engine = Engine(FakeContext(2), 2, Pace(target=0.1, n_batch=BLOCK, n_ubatch=BLOCK))
    ask(engine, words(10), max_tokens=100)
    engine.step()
    (reader,) = ask(engine, words(DEEP + 56, seed=4), max_tokens=1)
    n_read, read = engine.counts.prompt_tokens, []
    while not reader.tokens:
        engine.step()
        read.append(engine.counts.prompt_tokens - n_read)
        n_read = engine.counts.prompt_tokens
    assert read == [BLOCK] * (DEEP // BLOCK) + [32, 24]


def test_less_than_a_block_behind_what_is_cached_is_one_call_wherever_it_begins() -> None:
    context = FakeContext(1)
    engine = Engine(context, 1, Pace(target=0.1, n_batch=512, n_ubatch=512))
    ask(engine, words(50), max_tokens=1)
    run(engine)
    context.calls.clear()
    ask(engine, words(50) + words(40, 2), max_tokens=1)
    run(engine)
    assert len(context.calls) == 1


def test_blocks_begin_where_what_is_cached_ends() -> None:
    """So no call but the last has less than a block, for which attention takes the slower way."""
    engine = Engine(FakeContext(1), 1, Pace(target=0.1, n_batch=BLOCK, n_ubatch=BLOCK))
    ask(engine, words(50), max_tokens=1)
    run(engine)
    ask(engine, words(50) + words(BLOCK + 40, 2), max_tokens=1)
    n_before = engine.counts.steps
    run(engine)
    assert engine.counts.step_rows[n_before:] == [BLOCK, 40]


class Failing(FakeContext):
    """A context that cannot decode a certain token."""

    def decode(self, spans: Rows[tuple[int, int, list[int], bool]]) -> None:
        if any(-1 in tokens for _, _, tokens, _ in spans):
            raise GenerationFailed("a token that cannot be decoded")
        super().decode(spans)


def test_a_failing_request_takes_nobody_with_it() -> None:
    engine = make(3, Failing(3))
    (bad,) = ask(engine, [*words(20), -1])
    (good,) = ask(engine, words(21, seed=3))
    run(engine)
    assert isinstance(bad.error, GenerationFailed)
    assert good.reason == "length"


@pytest.mark.parametrize("n_known", [0, 1, 7, 40, 64, 99])
def test_what_another_worker_began_goes_on_as_if_it_had_not_ended(n_known: int) -> None:
    prompt, context = words(130), FakeContext(3)
    expected, _ = alone(prompt, seed=0, max_tokens=100, stop_at=-1)
    engine, group, heard = make(3, context), Group(), Notebook()
    seq = Sequence(list(prompt), group, heard, context.sampler(), 100)
    seq.tokens += expected[:n_known]
    engine.submit(group)
    run(engine)
    assert heard.tokens == expected[n_known : len(heard.tokens) + n_known]
    assert heard.reason == "length" or expected[-1] == 990


def test_choices_that_were_begun_and_those_that_were_not_go_on_together() -> None:
    context = FakeContext(2)
    engine, group, heard = make(2, context), Group(), [Notebook() for _ in range(4)]
    for choice, notebook in enumerate(heard):
        seq = Sequence(words(100), group, notebook, context.sampler(choice), 10)
        seq.tokens += alone(words(100), choice, max_tokens=choice % 2 * 5, stop_at=-1)[0]
    engine.submit(group)
    run(engine)
    for choice, notebook in enumerate(heard):
        assert notebook.tokens == alone(words(100), choice, max_tokens=10, stop_at=-1)[0][choice % 2 * 5 :]
    assert engine.counts.prompt_tokens <= 101, "the prompt is computed once; its last token may be again"


def test_a_prompt_is_read_in_the_chunks_that_its_request_wants() -> None:
    engine = make(1)
    group, heard = Group(chunk=8), Notebook()
    Sequence(words(20), group, heard, FakeContext(1).sampler(), 1)
    assert [chunk.n for batch in planned(engine, group) for chunk in batch] == [8, 8, 4]


def planned(engine: Engine, group: Group) -> list[Batch]:
    engine.submit(group)
    engine.scheduler.admit(lambda: True)
    return engine.scheduler.plan()


def test_a_batch_runs_with_the_most_threads_that_one_of_its_requests_wants() -> None:
    context = FakeContext(4)
    engine = make(4, context)
    # 0: as many as the context began with.
    for n_threads, expected in ((1, 1), (0, N_THREADS), (3, 3), (2, 3)):
        group = Group(n_threads=n_threads)
        Sequence(words(5, seed=n_threads), group, Notebook(), context.sampler(), 9)
        engine.submit(group)
        engine.step()
        engine.step()
        assert context.n_threads == expected


def test_without_continuous_batching_a_prompt_waits_until_nobody_writes() -> None:
    engine = make(4, is_continuous=False)
    (first,) = ask(engine, words(100), max_tokens=10)
    while not first.tokens:
        engine.step()
    (second,) = ask(engine, words(100, seed=2))
    while first.reason is None:
        assert not second.tokens
        engine.step()
    run(engine)
    assert len(second.tokens) == 4


def test_without_continuous_batching_prompts_that_came_together_and_siblings_write_together() -> None:
    engine = make(4, is_continuous=False)
    heard = [*ask(engine, words(100), n=2, max_tokens=10), *ask(engine, words(100, seed=2), max_tokens=10)]
    while not any(each.reason for each in heard):
        engine.step()
    assert all(each.tokens for each in heard)


def fails_at(n_tokens: int, heard: Notebook, context: FakeContext) -> Callable[[int], int]:
    """Samples, until so many tokens were heard."""
    sample = context.sampler()

    def choose(span: int) -> int:
        if len(heard.tokens) == n_tokens:
            raise GenerationFailed("the logits are not numbers")
        return sample(span)

    return choose


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_choice_that_fails_ends_its_request_once_and_leaves_the_slots_in_order(failing: int) -> None:
    context = FakeContext(4)
    engine, group, heard = make(4, context), Group(), [Notebook() for _ in range(3)]
    for choice, notebook in enumerate(heard):
        sample = fails_at(3, notebook, context) if choice == failing else context.sampler(choice)
        Sequence(words(20), group, notebook, sample, 9 if choice == failing else 4)
    engine.submit(group)
    (other,) = ask(engine, words(30, seed=9), max_tokens=8)
    run(engine)
    assert isinstance(heard[failing].error, GenerationFailed)
    assert [notebook.error for notebook in heard].count(None) == 2
    assert other.reason == "length"
    assert engine.slots.n_owned == engine.slots.n_writing == group.n_running == 0
