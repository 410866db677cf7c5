"""By the rules, only what carries the bits of a cold run is taken from who computed it before."""

import random
from collections.abc import Iterable

import pytest

from plait.engine.engine import Engine
from plait.engine.pace import Pace
from plait.engine.segments import Segments
from plait.engine.sequence import BLOCK, DEEP, Group, Sequence
from plait.protocol import Verdict
from tests.fakes.context import FakeContext
from tests.fakes.listener import Notebook
from tests.fakes.shelf import FakeShelf
from tests.unit.engine.prefix_cache import check_segments

FREE = Verdict(
    reproducible="under load",
    replay_chunk=63,
    blocks_together=True,
    tails_together=True,
    ends_decoded=False,
    any_threads=True,
)
DECODES = Verdict(reproducible="under load, padded", replay_chunk=1, ends_decoded=True)


def words(n: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(900) for _ in range(n)]


def open_engine(n_slots: int = 2, segments: Segments | None = None, rules: Verdict | None = FREE) -> Engine:
    context = segments.memory if segments else FakeContext(n_slots)
    assert isinstance(context, FakeContext)
    return Engine(context, n_slots, Pace(1.0, 256, 256, prompt_seconds=1e-4), segments, rules=rules)


def submit(
    engine: Engine,
    prompt: list[int],
    rules: Verdict | None,
    max_tokens: int = 1,
    chunk: int = BLOCK,
    output: Iterable[int] = (),
) -> Notebook:
    heard, context = Notebook(), engine.context
    assert isinstance(context, FakeContext)
    seq = Sequence(list(prompt), (group := Group(rules=rules, chunk=chunk)), heard, context.sampler(), max_tokens)
    seq.tokens += output
    engine.submit(group)
    return heard


def ask(engine: Engine, prompt: list[int], rules: Verdict | None, chunk: int = BLOCK) -> int | None:
    """How many tokens were cached."""
    heard = submit(engine, prompt, rules, chunk=chunk)
    while not engine.is_idle:
        engine.step()
    return heard.n_cached


@pytest.mark.parametrize("first", [None, FREE])
def test_whole_blocks_are_taken_and_no_more(first: Verdict | None) -> None:
    engine, prompt = open_engine(), words(200)
    ask(engine, prompt, first)
    assert ask(engine, prompt + words(9, 2), FREE) == 192
    assert ask(engine, prompt + words(9, 3), None) == 200


def test_what_goes_on_from_an_inexact_prefix_is_not_exact() -> None:
    """The second takes 100 tokens; the 64-row chunks that follow do not begin where a cold run's do."""
    engine, prompt = open_engine(1), words(300)
    ask(engine, prompt[:100], None)
    assert ask(engine, prompt, None) == 100
    assert ask(engine, prompt, FREE) == 64


def test_who_leaves_an_exact_prompt_within_a_block_is_exact_up_to_that_block() -> None:
    engine, prompt = open_engine(), words(300)
    ask(engine, prompt, None)
    other = prompt[:100] + words(200, 2)
    assert ask(engine, other, None) == 100
    assert ask(engine, [*other, 5], FREE) == 64


def test_known_output_is_not_taken_from_who_had_it_as_a_prompt() -> None:
    engine, prompt, output = open_engine(), words(100), words(100, 2)
    ask(engine, [*prompt, *output, 5], None)
    heard = submit(engine, prompt, FREE, max_tokens=101, output=output)
    while not engine.is_idle:
        engine.step()
    assert heard.n_cached == 64


@pytest.mark.parametrize("n_short", [0, 20, 64, 100, 299])
def test_a_shorter_prompt_before_it_does_not_keep_a_prompt_from_being_exact(n_short: int) -> None:
    engine, prompt = open_engine(1, Segments(FakeContext(1), 10**6)), words(300)
    if n_short:
        ask(engine, prompt[:n_short], FREE)
    ask(engine, prompt, FREE)
    for seed in (51, 52, 53):
        ask(engine, words(250, seed), FREE)
    assert ask(engine, [*prompt, 5], FREE) == 256
    check_segments(engine.segments)


def test_a_file_with_other_bits_is_written_anew() -> None:
    shelf, prompt = FakeShelf(), words(300)
    engine = open_engine(1, Segments(FakeContext(1), 10**6, shelf))
    ask(engine, prompt[:20], FREE)
    engine.close()
    ask(engine, prompt, FREE)
    engine.close()
    check_segments(engine.segments)
    later = open_engine(1, Segments(FakeContext(1), 10**6, shelf))
    assert ask(later, [*prompt, 5], FREE) == 256


def test_small_chunks_are_not_exact() -> None:
    engine, prompt = open_engine(), words(200)
    ask(engine, prompt, None, chunk=16)
    assert ask(engine, prompt, FREE) == 0


def test_blocks_that_shared_a_call_are_not_exact_where_that_makes_a_difference() -> None:
    engine = open_engine(2, rules=DECODES)
    one, other = words(128, 1), words(128, 2)
    submit(engine, one, None)
    submit(engine, other, None)
    while not engine.is_idle:
        engine.step()
    assert ask(engine, [*one, 1], DECODES) == 0


def test_without_rules_nothing_is_exact() -> None:
    """As in a shared pool: who has rules, and meets the files later, would take them for those of a cold run."""
    shelf, prompt = FakeShelf(), words(200)
    unified = open_engine(1, Segments(FakeContext(1, n_cells=2048), 10**6, shelf), rules=None)
    ask(unified, prompt, None)
    unified.close()
    assert {record.n_exact for record, _ in shelf.files.values()} == {0}
    assert ask(open_engine(1, Segments(FakeContext(1), 10**6, shelf)), prompt, FREE) == 0


def test_who_reads_the_same_is_waited_for_in_whole_blocks() -> None:
    engine, prompt = open_engine(), words(300)
    submit(engine, prompt, None)
    engine.step()
    heard = submit(engine, prompt, FREE)
    while not engine.is_idle:
        engine.step()
    assert heard.cached
    assert heard.cached.n == 256


@pytest.mark.parametrize(("keeps_exact", "n"), [(True, 192), (False, 0)])
def test_files_hold_what_is_exact_unless_they_cannot(keeps_exact: bool, n: int) -> None:
    shelf, prompt = FakeShelf(random.Random(1)), words(200)
    first = open_engine(1, Segments(FakeContext(1), 10**6, shelf))
    ask(first, prompt, None)
    first.close()
    second = open_engine(1, Segments(FakeContext(1), 10**6, shelf, keeps_exact=keeps_exact))
    assert ask(second, prompt, FREE) == n


def test_a_file_that_another_process_wrote_from_small_chunks_is_not_exact() -> None:
    shelf, prompt = FakeShelf(), words(200)
    one, other = (open_engine(1, Segments(FakeContext(1), 10**6, shelf)) for _ in range(2))
    ask(one, prompt, None, chunk=16)
    ask(other, prompt, FREE)
    for engine in (one, other):
        engine.close()
    other.tidy()
    assert other.segments.find(prompt, "").n == 200
    assert other.segments.find(prompt, "", exact=True).n == 0


def test_a_state_that_cannot_be_cut_is_exact_up_to_its_end_in_a_file_too() -> None:
    shelf, prompt = FakeShelf(), words(128)
    context = FakeContext(1, can_cut=False)
    segments = Segments(context, 10**6, shelf)
    for start in (0, 64):
        context.decode([(0, start, prompt[start : start + 64], False)])
        segments.keep(0, prompt[: start + 64], start + 64, "")
    segments.exchange(min_age=0)
    segments.exchange()
    for each in (segments, Segments(context, 10**6, shelf)):
        assert sum(each.find(prompt, "", exact=True)) == 128


@pytest.mark.parametrize("n_prompt", [1, 2, 63, 64, 65, 128, DEEP + 1, DEEP + 32, DEEP + 33, DEEP + 34])
@pytest.mark.parametrize("rules", [FREE, DECODES])
def test_no_chunk_before_the_first_choice_is_a_single_row(n_prompt: int, rules: Verdict) -> None:
    """But for one that is left of a prompt whose last token is decoded, which has a call of its own."""
    seq = Sequence(words(n_prompt), Group(rules=rules), Notebook(), lambda span: 0, 9)
    position, lengths = 0, []
    while position < seq.n_chunked:
        lengths.append(seq.next_border(position) - position)
        position += lengths[-1]
    assert sum(lengths) == seq.n_chunked >= n_prompt - 1
    assert 1 not in lengths or rules is DECODES


@pytest.mark.parametrize(("rules", "is_writing"), [(FREE, False), (DECODES, True)])
def test_known_output_is_decoded_where_a_chunk_would_not_do(rules: Verdict, is_writing: bool) -> None:
    seq = Sequence(words(70), Group(rules=rules), Notebook(), lambda span: 0, 90)
    seq.tokens += words(40, 2)
    seq.n_past = seq.n_chunked
    assert seq.is_writing == is_writing
