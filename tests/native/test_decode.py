"""Computing: what comes out does not depend on company, and nothing that is asked for ends the process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from plait import config
from plait.errors import ModelLoadFailed
from plait.llama import lib
from plait.llama.batch import Span
from plait.llama.context import Context, DecodeFailed
from plait.llama.model import Model
from plait.llama.sampling import BadLogits, Sampler
from plait.protocol import Sampling
from tests.native import models
from tests.native.conftest import ENGINE

GREEDY = Sampling(seed=0, temperature=0)
PROMPTS = [[5, 6, 7], [100, 101], [50] * 9, list(range(20, 60))]


@pytest.fixture
def greedy(model: Model) -> Iterator[Sampler]:
    sampler = Sampler(model, GREEDY, 0, [])
    yield sampler
    sampler.close()


def written_alone(context: Context, sampler: Sampler, prompt: list[int], n: int) -> list[int]:
    """The plainest loop there is: one sequence, one token a pass."""
    tokens = list(prompt)
    for position in range(len(prompt) + n - 1):
        context.decode([(0, position, [tokens[position]], True)])
        if position >= len(prompt) - 1:
            tokens.append(context.sample(sampler, 0))
    context.trim(0, 0)
    return tokens[len(prompt) :]


def written_together(context: Context, sampler: Sampler, prompts: list[list[int]], n: int) -> list[list[int]]:
    context.decode([(i, 0, prompt, True) for i, prompt in enumerate(prompts)])
    texts: list[list[int]] = [[] for _ in prompts]
    for _ in range(n):
        for i, text in enumerate(texts):
            text.append(context.sample(sampler, i))
        context.decode([(i, context.held(i), [text[-1]], True) for i, text in enumerate(texts)])
    return texts


def test_company_does_not_change_the_text(context: Context, greedy: Sampler) -> None:
    together = written_together(context, greedy, PROMPTS, 20)
    for stream in range(4):
        context.trim(stream, 0)
    assert together == [written_alone(context, greedy, prompt, 20) for prompt in PROMPTS]


def test_a_prompt_in_pieces_is_the_same_prompt(context: Context) -> None:
    prompt = [int(token) for token in np.random.default_rng(1).integers(4, 260, 200)]
    context.decode([(0, 0, prompt, True), (1, 0, prompt[:56], False)])
    whole = context.logits(0)
    context.decode([(1, 56, prompt[56:], True)])
    assert np.allclose(whole, context.logits(0), atol=0.05)


def test_logits_belong_to_the_span_that_wants_them(context: Context) -> None:
    context.decode([(0, 0, [5], True), (1, 0, [6, 7], False), (3, 0, [8], True)])
    first, last = context.logits(0), context.logits(2)
    context.trim(0, 0)
    context.trim(3, 0)
    context.decode([(0, 0, [8], True), (3, 0, [5], True)])
    assert np.allclose(first, context.logits(1), atol=0.05)
    assert np.allclose(last, context.logits(0), atol=0.05)
    assert first.shape == (len(models.vocabulary()),)


REFUSED_BATCHES: list[tuple[list[Span], str]] = [
    ([], "a batch of 0 tokens"),
    ([(0, 0, [5] * 257, True)], "a batch of 257 tokens"),
    ([(0, 0, [5] * 200, True), (1, 0, [5] * 57, True)], "a batch of 257 tokens"),
    ([(4, 0, [5], True)], "no stream 4"),
    ([(-1, 0, [5], True)], "no stream -1"),
    ([(0, 0, [], True)], "0 more tokens"),
    ([(0, 1, [5], True)], "holds 0 tokens"),
    ([(2, 9, [5], True)], "holds 10 tokens"),
    ([(2, 11, [5], True)], "holds 10 tokens"),
    ([(3, 512, [5], True)], "has room for 1 to 0"),
    ([(0, 0, [5], True), (0, 0, [6], True)], "two spans"),
    ([(0, 0, [-1], True)], "token id"),
    ([(0, 0, [5, len(models.vocabulary())], True)], "token id"),
    ([(0, 0, [2**31], True)], "32 bits"),
    ([(0, 0, [5, -(2**40)], True)], "32 bits"),
]


@pytest.mark.parametrize(("spans", "reason"), REFUSED_BATCHES)
def test_a_batch_that_would_abort_is_refused(context: Context, spans: list[Span], reason: str) -> None:
    context.decode([(2, 0, [5] * 10, False), (3, 0, [5] * 200, False)])
    context.decode([(3, 200, [5] * 256, False)])
    context.decode([(3, 456, [5] * 56, False)])
    with pytest.raises(ValueError, match=reason):
        context.decode(spans)
    assert [context.held(stream) for stream in range(4)] == [0, 0, 10, 512]
    context.decode([(2, 10, [6], True)])
    assert np.isfinite(context.logits(0)).all()


@pytest.mark.parametrize("span", [-1, 1, 2])
def test_logits_that_are_not_there_are_refused(context: Context, greedy: Sampler, span: int) -> None:
    context.decode([(0, 0, [5], True), (1, 0, [5], False)])
    with pytest.raises(ValueError, match="no logits"):
        context.logits(span)
    with pytest.raises(ValueError, match="no logits"):
        context.sample(greedy, span)


def test_there_are_no_logits_before_the_first_batch(context: Context) -> None:
    with pytest.raises(ValueError, match="no logits"):
        context.logits(0)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=0)])
def test_logits_that_are_no_numbers_are_not_sampled(overflowing_model: Model, sampling: Sampling) -> None:
    sampler = Sampler(overflowing_model, sampling, 0, [])
    with Context(overflowing_model, ENGINE, n_ctx=256, n_slots=1) as context:
        context.decode([(0, 0, [5], True)])
        with pytest.raises(BadLogits):
            context.sample(sampler, 0)
    sampler.close()


def test_after_a_failure_the_streams_hold_what_libllama_says(context: Context) -> None:
    context.decode([(0, 0, [5] * 10, True), (1, 0, [6] * 10, True)])
    memory = lib.native.llama_get_memory(context.handle)
    lib.native.llama_memory_seq_rm(memory, 0, 4, -1)
    with pytest.raises(DecodeFailed, match="does not accept"):
        context.decode([(0, 10, [5], True), (1, 10, [6], True)])
    assert (context.held(0), context.held(1)) == (4, 10)
    with pytest.raises(ValueError, match="no logits"):
        context.logits(0)
    context.decode([(0, 4, [5], True), (1, 10, [6], True)])


def test_a_stream_is_as_long_as_libllama_makes_it(model: Model) -> None:
    with Context(model, ENGINE, n_ctx=257, n_slots=3) as context:
        assert (context.n_ctx, context.n_slots, context.n_batch, context.n_threads) == (512, 3, 256, 1)
        assert context.kv_bytes == 3 * 512 * models.N_LAYER * 2 * models.HEAD_SIZE * 2


def test_a_wish_for_threads_ends_at_the_cores(context: Context) -> None:
    context.use_threads(10**6)
    assert lib.native.llama_n_threads(context.handle) == len(os.sched_getaffinity(0))
    context.use_threads(0, 2)
    assert lib.native.llama_n_threads(context.handle) == min(2, len(os.sched_getaffinity(0)))
    context.use_threads(0)
    assert lib.native.llama_n_threads(context.handle) == context.n_threads


def test_every_slot_may_write_at_once(model: Model, greedy: Sampler) -> None:
    engine = config.Engine(threads=1, batch_size=64, ubatch_size=64)
    with Context(model, engine, n_ctx=256, n_slots=100) as context:
        context.decode([(stream, 0, [5], True) for stream in range(100)])
        assert len({context.sample(greedy, span) for span in range(100)}) == 1


@pytest.mark.parametrize(("n_ctx", "n_slots"), [(256, 0), (256, 257), (0, 1), (2**24, 256)])
def test_a_context_that_cannot_be_is_refused(model: Model, n_ctx: int, n_slots: int) -> None:
    with pytest.raises(ModelLoadFailed):
        Context(model, ENGINE, n_ctx=n_ctx, n_slots=n_slots)
    assert model.n_contexts == 0


def test_what_libllama_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    models.write_llama(tmp_path / "narrow.gguf", n_head=4)
    engine = msgspec.structs.replace(ENGINE, cache_type_k="q8_0")
    with Model(str(tmp_path / "narrow.gguf"), engine) as narrow, pytest.raises(ModelLoadFailed, match="block size 32"):
        Context(narrow, engine, n_ctx=256, n_slots=1)


@pytest.mark.parametrize("kind", lib.CACHE_TYPES)
def test_every_type_of_cache_works(model: Model, kind: config.CacheType) -> None:
    engine = msgspec.structs.replace(ENGINE, cache_type_k=kind, cache_type_v=kind)
    with Context(model, ENGINE, n_ctx=256, n_slots=1) as usual, Context(model, engine, n_ctx=256, n_slots=1) as other:
        for context in (usual, other):
            context.decode([(0, 0, PROMPTS[3], True)])
        a, b = usual.logits(0), other.logits(0)
    assert np.corrcoef(a, b)[0, 1] > 0.9


def test_a_closed_context_does_nothing(model: Model, greedy: Sampler) -> None:
    context = Context(model, ENGINE, n_ctx=256, n_slots=2)
    context.decode([(0, 0, [5], True)])
    context.close()
    context.close()
    calls: list[Callable[[], object]] = [
        lambda: context.decode([(0, 1, [5], True)]),
        lambda: context.sample(greedy, 0),
        lambda: context.logits(0),
        lambda: context.copy(0, 1, 1),
        lambda: context.swap(0, 1),
        lambda: context.trim(0, 0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"closed|no logits"):
            call()


def test_a_recurrent_model_decodes(recurrent_context: Context, recurrent_model: Model) -> None:
    sampler = Sampler(recurrent_model, GREEDY, 0, [])
    together = written_together(recurrent_context, sampler, PROMPTS, 8)
    for stream in range(4):
        recurrent_context.trim(stream, 0)
    assert together == [written_alone(recurrent_context, sampler, prompt, 8) for prompt in PROMPTS]
    sampler.close()
