"""What comes out of the prefix cache has the bits that went in, for random trees of prompts on a real context."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from plait import config
from plait.engine.segments import Segments
from plait.errors import GenerationFailed
from plait.llama.cells import Cells
from plait.llama.context import Context
from plait.llama.model import Model
from tests.fakes.shelf import FakeShelf
from tests.native.conftest import ENGINE

QUANTIZED = structs.replace(ENGINE, cache_type_k="q8_0", cache_type_v="q8_0")
CHUNK = 32
"""Rows of chunks below 64 have the same bits, wherever the chunks end."""


@pytest.fixture(params=[ENGINE, QUANTIZED], ids=["f16", "q8_0"])
def context(request: pytest.FixtureRequest, model: Model) -> Iterator[Context]:
    settings: config.Engine = request.param
    with Context(model, settings, n_ctx=512, n_slots=3) as context:
        yield context


def prompts(rng: random.Random, n: int) -> list[list[int]]:
    """They part from each other at random places."""
    made = [[rng.randrange(4, 260) for _ in range(300)]]
    while len(made) < n:
        parent = rng.choice(made)
        made.append(
            parent[: rng.randrange(len(parent))] + [rng.randrange(4, 260) for _ in range(rng.randrange(1, 150))]
        )
    return made


def read(context: Context, stream: int, tokens: list[int]) -> NDArray[np.float32]:
    """Decode what of `tokens` the stream does not hold; the logits of the last."""
    for start in range(context.held(stream), len(tokens), CHUNK):
        context.decode([(stream, start, tokens[start : start + CHUNK], True)])
    return context.logits(0)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_restored_goes_on_to_the_same_bits(context: Context, seed: int) -> None:
    rng, shelf, time = random.Random(seed), FakeShelf(), iter(range(10**6))
    segments = Segments(context, 10**9, shelf, clock=lambda: float(next(time)))
    logits: dict[int, NDArray[np.float32]] = {}
    asked = prompts(rng, 12)
    for i, prompt in enumerate(asked):
        context.trim(0, 0)
        read(context, 0, prompt)
        segments.keep(0, prompt, 0, "")
        context.decode([(0, len(prompt), [77], True)])
        logits[i] = context.logits(0)
    segments.exchange(min_age=0)
    for again in (segments, Segments(context, 10**9, shelf)):
        for i in rng.sample(range(len(asked)), len(asked)):
            assert np.array_equal(next_logits(context, again, asked[i]), logits[i])


def test_a_whole_state_says_which_contexts_take_it(sliding_model: Model) -> None:
    shapes, kept = [], None
    for n_slots, n_cells in ((3, 0), (2, 0), (3, 0), (2, 1024), (3, 1024)):
        with Context(sliding_model, ENGINE, n_ctx=512, n_slots=n_slots, n_cells=n_cells) as context:
            read(context, 0, list(range(50, 150)))
            kept = kept or context.save(0, 0)
            shapes.append(context.state_shape)
            assert takes(context, kept) == (context.state_shape == shapes[0])
    assert len(set(shapes)) == 3


def takes(context: Context, cells: Cells) -> bool:
    try:
        context.restore(1, [cells])
    except GenerationFailed:
        return False
    return True


def next_logits(context: Context, segments: Segments, prompt: list[int]) -> NDArray[np.float32]:
    """After one more token behind a prompt that is all known; nothing of it is computed."""
    found = segments.find(prompt, "")
    if found.n_on_disk:
        fetch = segments.fetch(prompt, "")
        segments.exchange()
        assert fetch.is_over
    assert segments.find(prompt, "").n == len(prompt)
    context.restore(1, segments.take(prompt, "").parts)
    context.decode([(1, len(prompt), [77], True)])
    return context.logits(0)
