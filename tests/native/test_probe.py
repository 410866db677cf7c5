"""What a probe measures of real models, and that it sees what is not so."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
from msgspec import structs

from benchmarks.random_model import Shape, quantize, write
from plait import config
from plait.llama.batch import Span
from plait.llama.context import Context
from plait.llama.model import Model
from plait.llama.probe import key, probe
from plait.llama.verdict import judge
from plait.protocol import Facts
from tests.native.conftest import ENGINE

N_SLOTS = 4
PATIENCE = 600.0
"""Seconds; so many are never needed."""
SMALL = Shape(n_layer=2, n_embd=256, n_head=4, n_head_kv=2, n_ff=512, n_vocab=1000)
"""Whole K-quant blocks in every row."""


class Planted(Context):
    """Computes one kind of batch with another last token: as if its rows were computed otherwise."""

    def __init__(self, spoils: Callable[[Sequence[Span]], bool], *args: object, **sizes: int) -> None:
        self.spoils = spoils
        super().__init__(*args, **sizes)  # type: ignore[arg-type]

    def decode(self, spans: Sequence[Span]) -> None:
        if self.spoils(spans):
            stream, start, tokens, is_wanted = spans[-1]
            spans = [*spans[:-1], (stream, start, [*tokens[:-1], tokens[-1] ^ 1], is_wanted)]
        super().decode(spans)


def spans_of(*lengths: int) -> Callable[[Sequence[Span]], bool]:
    """Batches of spans of these lengths."""
    return lambda spans: tuple(len(tokens) for _, _, tokens, _ in spans) == lengths


def measured(model: Model, **more: object) -> Facts:
    facts = probe(model, ENGINE, n_slots=N_SLOTS, seconds=PATIENCE, **more)  # type: ignore[arg-type]
    return structs.replace(facts, seconds=0.0)


@pytest.fixture(scope="module")
def demo() -> Iterator[Model]:
    with Model(str(files("plait.demo") / "plait-demo.gguf"), ENGINE) as model:
        yield model


def test_the_demo_model_gives_the_same_text_under_load(demo: Model) -> None:
    facts = measured(demo)
    verdict = judge(facts, N_SLOTS)
    assert not facts.cut_short
    assert facts.widths == (1, 2, 3, 4, 5, 6, 7, 8)
    assert facts.blocks
    assert verdict.reproducible.startswith("under load")


def test_facts_do_not_change(model: Model) -> None:
    assert measured(model) == measured(model)


def test_contexts_are_freed(model: Model) -> None:
    before = model.n_contexts
    measured(model)
    probe(model, ENGINE, n_slots=N_SLOTS, seconds=0)
    assert model.n_contexts == before


def test_as_many_rows_are_tried_as_there_are_slots(model: Model) -> None:
    assert probe(model, ENGINE, n_slots=11, seconds=PATIENCE).widths == (*range(1, 10), 11, 12, 15, 16)


@pytest.mark.parametrize("quantization", ["q4_0", "q4_k_m"])
def test_quantized_models_are_judged(folder: Path, quantization: str) -> None:
    wide, narrow = folder / "wide.gguf", folder / f"{quantization}.gguf"
    write(SMALL, "small", wide)
    quantize(wide, narrow, quantization)
    with Model(str(narrow), ENGINE) as model:
        facts = measured(model)
    assert not facts.cut_short
    assert judge(facts, N_SLOTS).reproducible != "no"


PLANTS: list[tuple[Callable[[Sequence[Span]], bool], Callable[[Facts], bool]]] = [
    (spans_of(128), lambda facts: not facts.blocks),
    (spans_of(64, 64), lambda facts: not facts.blocks_beside),
    (spans_of(31, 31), lambda facts: not facts.tails_beside),
    (spans_of(*[5] * 8), lambda facts: not facts.ends),
    (spans_of(1, 1, 1, 1, 1), lambda facts: not any(5 in widths for widths in facts.classes)),
    (spans_of(63), lambda facts: facts.replay_chunk < 63),
    (lambda spans: len(spans) == 1 and 32 < len(spans[0][2]) < 64, lambda facts: facts.replay_chunk <= 32),
    (lambda spans: len(spans) == 1 and spans[0][1] > 512, lambda facts: not facts.deep_alone),
]
"""What is spoilt, and how that is seen."""


@pytest.mark.parametrize(("spoils", "is_seen"), PLANTS)
def test_a_planted_violation_is_measured(
    demo: Model, spoils: Callable[[Sequence[Span]], bool], is_seen: Callable[[Facts], bool]
) -> None:
    assert is_seen(measured(demo, open_context=partial(Planted, spoils)))


@pytest.mark.parametrize("n_steps", range(5))
def test_a_probe_goes_on_behind_what_another_one_had_time_for(model: Model, n_steps: int) -> None:
    """What that one says of them stays, here the contrary of what is so."""
    whole = measured(model)
    said: dict[str, int] = {"blocks_beside": False} if n_steps > 0 else {}
    said |= {"any_threads": not whole.any_threads} if n_steps > 1 else {}
    said |= {"tails_beside": not whole.tails_beside} if n_steps > 2 else {}
    said |= {"replay_chunk": 1} if n_steps > 3 else {}
    begun = structs.replace(whole, **said, n_steps=n_steps, deep_alone=False, seconds=60.0, cut_short="too slow")
    found = probe(model, ENGINE, n_slots=N_SLOTS, seconds=PATIENCE, begun=begun)
    assert found.seconds > 60
    assert structs.replace(found, seconds=0.0) == structs.replace(whole, **said)


class Tardy(Context):
    """After so many calls, one takes so long that the probe's time is over."""

    def __init__(self, until: float, *args: object, **sizes: int) -> None:
        self.until, self.n_calls = until, 0
        super().__init__(*args, **sizes)  # type: ignore[arg-type]

    def decode(self, spans: Sequence[Span]) -> None:
        self.n_calls += 1
        while self.n_calls > 12 and time.monotonic() < self.until:
            pass
        super().decode(spans)


def test_parts_that_came_to_their_end_are_known_when_time_is_over(model: Model) -> None:
    late = partial(Tardy, time.monotonic() + 2.1)
    begun = probe(model, ENGINE, n_slots=N_SLOTS, seconds=2.0, open_context=late)
    assert begun.cut_short
    assert 0 < begun.n_steps < 5
    assert measured(model, begun=begun) == measured(model)


def test_what_takes_too_long_is_cut_short(model: Model) -> None:
    facts = probe(model, ENGINE, n_slots=N_SLOTS, seconds=0)
    assert "longer than 0 seconds; --probe-seconds allows more" in facts.cut_short
    assert judge(facts, N_SLOTS).reproducible == "no"


def test_a_recurrent_model_is_not_measured(recurrent_model: Model) -> None:
    facts = probe(recurrent_model, ENGINE, n_slots=N_SLOTS)
    assert "all tokens at once" in facts.cut_short
    assert not facts.widths


def test_a_small_ubatch_takes_one_block_only(model: Model) -> None:
    engine = structs.replace(ENGINE, ubatch_size=64)
    facts = probe(model, engine, n_slots=N_SLOTS, seconds=PATIENCE)
    assert facts.blocks
    assert not facts.cut_short


def test_the_smallest_batch_is_enough(model: Model) -> None:
    engine = structs.replace(ENGINE, batch_size=64)
    assert not probe(model, engine, n_slots=N_SLOTS, seconds=PATIENCE).cut_short


def test_a_key_is_of_what_facts_depend_on() -> None:
    here = key("abc", ENGINE, n_threads=(1, 1), n_slots=4)
    assert here == key("abc", structs.replace(ENGINE, ctx_size=99), n_threads=(1, 1), n_slots=4)
    assert here != key("abc", structs.replace(ENGINE, batch_size=100), n_threads=(1, 1), n_slots=4)
    assert here != key("abc", config.Engine(cache_type_k="q8_0"), n_threads=(1, 1), n_slots=4)
    assert here != key("abc", ENGINE, n_threads=(2, 2), n_slots=4)
