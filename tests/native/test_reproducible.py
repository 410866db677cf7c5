"""The same request gets the same text: on a real context, whatever else is computed, cached, moved or killed."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from msgspec import structs

from benchmarks.random_model import Shape, quantize, write
from plait import config
from plait.engine.engine import Engine
from plait.llama.batch import Span
from plait.llama.model import Model
from plait.llama.probe import probe
from plait.llama.verdict import judge
from tests.native.reproducible import Asked, Bench, Heard, Prepare, run_workload

DEMO = Path(str(files("plait.demo") / "plait-demo.gguf"))
N_SLOTS = 5
PATIENCE = 600.0
SETTINGS = config.Engine(threads=1, batch_size=512, ubatch_size=256)
SMALL = Shape(n_layer=2, n_embd=256, n_head=4, n_head_kv=2, n_ff=512, n_vocab=1000)
"""Whole K-quant blocks in every row."""


def opened(path: Path, settings: config.Engine = SETTINGS) -> Iterator[Bench]:
    with Model(str(path), settings) as model:
        verdict = judge(probe(model, settings, n_slots=N_SLOTS, seconds=PATIENCE), N_SLOTS)
        if verdict.reproducible == "no":
            pytest.skip(f"not with this machine's kernels: {verdict.reason}")
        yield Bench(model, settings, verdict)


@pytest.fixture(scope="module")
def demo() -> Iterator[Bench]:
    """Steps of two rows at least, although one thread could do without: so that padding is part of the game."""
    for bench in opened(DEMO):
        bench.rules = structs.replace(bench.rules, pad_to=max(bench.rules.pad_to, 2))
        yield bench


@pytest.fixture(scope="module", params=["q4_0", "q4_k_m"])
def quantized(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    wide, narrow = folder / "wide.gguf", folder / f"{request.param}.gguf"
    write(SMALL, "small", wide)
    quantize(wide, narrow, request.param)
    yield from opened(narrow)


@pytest.mark.parametrize("seed", range(4))
def test_all_get_the_text_they_get_alone(demo: Bench, seed: int) -> None:
    run_workload(demo, seed)


@pytest.mark.parametrize("seed", range(8))
def test_quantized_models_give_the_text_they_give_alone(quantized: Bench, seed: int) -> None:
    run_workload(quantized, seed)


def chunks_of_40(engine: Engine) -> None:
    """In the middle of a prompt."""
    decode = engine.context.decode

    def decode_by_40s(spans: Sequence[Span]) -> None:
        if len(spans) == 1 and len(spans[0][2]) == 64:
            ((stream, start, tokens, wanted),) = spans
            decode([(stream, start, tokens[:40], False)])
            decode([(stream, start + 40, tokens[40:], wanted)])
        else:
            decode(spans)

    plant(engine.context, "decode", decode_by_40s)


def any_cached_token(engine: Engine) -> None:
    plant(engine.slots, "_usable", lambda seq, n, owner, n_exact: n)


def rules_for_nobody(engine: Engine) -> None:
    """Steps are not padded, and tails share calls."""
    submit = engine.submit

    def submit_without(group: object) -> None:
        plant(group, "rules", None)
        submit(group)  # type: ignore[arg-type]

    plant(engine, "submit", submit_without)


def plant(where: object, name: str, bug: object) -> None:
    setattr(where, name, bug)


@pytest.mark.parametrize("bug", [chunks_of_40, any_cached_token], ids=lambda bug: bug.__name__)
def test_a_planted_violation_is_caught(demo: Bench, bug: Prepare) -> None:
    with pytest.raises(AssertionError):
        for seed in range(20):
            run_workload(demo, seed, bug)


def test_rules_that_are_not_obeyed_are_caught(quantized: Bench) -> None:
    if quantized.rules.reproducible == "under load":
        pytest.skip("this machine's kernels ask for nothing")
    with pytest.raises(AssertionError):
        for seed in range(20):
            run_workload(quantized, seed, rules_for_nobody)


def unpadded(engine: Engine) -> None:
    plant(engine, "padding", lambda batch: ([], []))


def test_a_single_row_deep_in_the_context_is_padded(demo: Bench) -> None:
    """At 900 tokens, and on two threads, which share the attention to a single row."""
    bench = Bench(demo.model, structs.replace(SETTINGS, threads=2), demo.rules)
    asked, other = (Asked(list(range(n, n + 900)), 1, 4, bench.rules, [Heard()]) for n in (4, 7))
    alone = bench.alone(asked)
    assert bench.together([asked, other])[0] == alone
    assert bench.alone(asked, prepare=unpadded) != alone
