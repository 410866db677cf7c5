"""A model gets what there is room for, and what was asked is given or refused."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from plait import gguf
from plait.config import Config, Engine, Models
from plait.errors import OutOfMemory
from plait.fleet import budget
from plait.fleet.budget import Fit, fit
from tests.fakes.gguf_file import Plain, Weights, write_gguf

MiB = 1024**2
CELL = 4 * (32 + 32) * 2
"""Bytes of KV that one token of the small model takes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K and V rows of 32 numbers in 4 layers, trained on 8,192 tokens."""
    return write_gguf(tmp_path_factory.mktemp("budget") / "m.gguf")


def needs(path: Path, engine: Engine, n_tokens: int, n_slots: int) -> int:
    """The least memory in which that many tokens and slots were found to fit."""
    asked = structs.replace(engine, ctx_size=n_tokens, slots=n_slots, kv_layout="split")
    low, high = 0, 2**40
    while low < high:
        middle = (low + high) // 2
        try:
            fit(path, asked, middle)
            high = middle
        except OutOfMemory:
            low = middle + 1
    return low


def size(found: Fit) -> tuple[int, int]:
    return found.ctx_size, found.slots


def test_with_room_a_model_gets_its_context_and_sixteen_slots(model: Path) -> None:
    found = fit(model, Engine(), 2**40)
    weights = gguf.skim(model).n_tensor_bytes
    assert found == Fit(8192, 16, weights, 8192 * 16 * CELL, found.compute_bytes)


def test_a_long_context_is_not_taken_unasked(tmp_path: Path) -> None:
    long = write_gguf(tmp_path / "m.gguf", {"llama.context_length": 131_072})
    assert fit(long, Engine(), 2**40).ctx_size == 8192
    assert fit(long, Engine(ctx_size=131_072), 2**40).ctx_size == 131_072


@pytest.mark.parametrize(("trained", "n_tokens"), [(100, 256), (300, 256), (512, 512), (1000, 768)])
def test_a_short_context_is_the_models_own(tmp_path: Path, trained: int, n_tokens: int) -> None:
    short = write_gguf(tmp_path / "m.gguf", {"llama.context_length": trained})
    assert fit(short, Engine(), 2**40).ctx_size == n_tokens


def test_the_context_gives_way_first_then_the_slots(model: Path) -> None:
    order = [(8192, 16), (4096, 16), (2048, 16), (2048, 8), (2048, 4), (1024, 4), (512, 4), (512, 2), (512, 1)]
    for (n_tokens, n_slots), (less_tokens, less_slots) in pairwise(order):
        room = needs(model, Engine(), n_tokens, n_slots)
        assert size(fit(model, Engine(), room)) == (n_tokens, n_slots)
        assert size(fit(model, Engine(), room - 1)) == (less_tokens, less_slots)


def test_a_model_keeps_to_its_share(model: Path) -> None:
    room = needs(model, Engine(), 2048, 16)
    assert size(fit(model, Engine(), 2 * room, share=0.5)) == (2048, 16)


def test_a_model_that_is_too_large_for_its_share_gets_the_least(model: Path) -> None:
    room = needs(model, Engine(), 512, 1)
    assert size(fit(model, Engine(), room, share=0.1)) == (512, 1)
    with pytest.raises(OutOfMemory, match="are available"):
        fit(model, Engine(), room - 1, share=0.1)


def test_smaller_cache_types_take_less(model: Path) -> None:
    small = fit(model, Engine(cache_type_k="q8_0", cache_type_v="q4_0"), 2**40)
    assert small.kv_bytes == 8192 * 16 * 4 * (34 + 18)


def test_a_recurrent_model_takes_no_kv_per_token(tmp_path: Path) -> None:
    changes: dict[str, Plain] = {"general.architecture": "mamba", "mamba.block_count": 3, "mamba.context_length": 4096}
    assert fit(write_gguf(tmp_path / "m.gguf", changes), Engine(), 2**40).kv_bytes == 0


def test_a_context_between_granules_is_kept_and_counted_whole(model: Path) -> None:
    odd = fit(model, Engine(ctx_size=1000, slots=2), 2**40)
    assert (odd.ctx_size, odd.kv_bytes) == (1000, 2 * 1024 * CELL)


def test_what_was_given_stays(model: Path) -> None:
    room = needs(model, Engine(), 2048, 16)
    assert fit(model, Engine(ctx_size=8192), room).ctx_size == 8192
    assert fit(model, Engine(slots=32), room).slots == 32


def test_slots_that_do_not_all_fit_share_a_pool(model: Path) -> None:
    room = needs(model, Engine(), 8192, 1)
    found = fit(model, Engine(ctx_size=8192, slots=16), room + 1000 * CELL)
    assert (*size(found), found.pool_cells) == (8192, 16, 8192 + 768)
    assert found.kv_bytes == found.pool_cells * CELL
    with pytest.raises(OutOfMemory, match="16 slots of 8,192 tokens"):
        fit(model, Engine(ctx_size=8192, slots=16), room - 1)
    with pytest.raises(OutOfMemory, match="16 slots of 8,192 tokens"):
        fit(model, Engine(ctx_size=8192, slots=16, kv_layout="split"), room)
    with pytest.raises(OutOfMemory, match="16 slots of 8,192 tokens"):
        fit(model, Engine(ctx_size=8192, slots=16, reproducible=True), room)


def test_a_pool_is_as_large_as_its_slots_together_at_most(model: Path) -> None:
    found = fit(model, Engine(ctx_size=1000, slots=4, kv_layout="unified"), 2**40)
    assert found.pool_cells == 4096
    assert fit(model, Engine(ctx_size=1000, slots=4, kv_cells=2000), 2**40).pool_cells == 2048


def test_a_pool_that_was_asked_for_is_not_made_smaller(model: Path) -> None:
    with pytest.raises(OutOfMemory, match="a pool of 1,048,576 tokens"):
        fit(model, Engine(kv_cells=2**20), 400 * MiB)


def test_no_room_is_refused_in_numbers(model: Path) -> None:
    with pytest.raises(OutOfMemory) as caught:
        fit(model, Engine(ctx_size=2**20, slots=4), 400 * MiB)
    said = caught.value.message
    assert "4.25 KiB for its weights + 2 GiB for the KV cache of 4 slots of 1,048,576 tokens" in said
    assert said.endswith("400 MiB are available; 16 slots of 8,192 tokens would fit")


def test_where_nothing_would_fit_nothing_is_promised(model: Path) -> None:
    with pytest.raises(OutOfMemory, match=r"1 slot of 512 tokens .* 1 MiB are available$"):
        fit(model, Engine(), MiB)


def test_weights_count(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tensors=[Weights("w", (1024, 1024), 0, 4 * MiB)])
    assert (
        needs(path, Engine(), 512, 1) - needs(write_gguf(tmp_path / "n.gguf", tensors=[]), Engine(), 512, 1) == 4 * MiB
    )


def test_so_does_what_it_takes_to_compute(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", tensors=[])
    wide = write_gguf(tmp_path / "n.gguf", {"llama.feed_forward_length": 128 + 1024}, tensors=[])
    assert needs(wide, Engine(), 512, 1) - needs(model, Engine(), 512, 1) == 3 * 1024 * 4 * 512
    assert needs(model, Engine(), 512, 1) > 512 * CELL + budget.PROCESS_BYTES


engines = st.builds(
    Engine,
    ctx_size=st.just(0) | st.integers(1, 2**17),
    slots=st.integers(0, 64),
    cache_type_k=st.sampled_from(["f16", "q8_0", "q4_0"]),
)


def fit_or_nothing(model: Path, engine: Engine, available: int) -> Fit:
    try:
        return fit(model, engine, available)
    except OutOfMemory:
        return Fit(0, 0, 0, 0, 0)


@given(engines, st.integers(0, 2**34))
def test_a_fit_is_never_over_what_there_is(model: Path, engine: Engine, available: int) -> None:
    found = fit_or_nothing(model, engine, available)
    assert found.n_bytes <= available
    n_cells = found.pool_cells or -(-found.ctx_size // 256) * 256 * found.slots
    assert found.kv_bytes == n_cells * budget.kv_bytes_per_token(gguf.skim(model), engine)
    assert found.ctx_size in (0, engine.ctx_size) or (not engine.ctx_size and found.ctx_size % 256 == 0)
    assert found.slots in (0, engine.slots) or not engine.slots


@given(engines, st.integers(0, 2**34), st.integers(0, 2**30))
def test_more_memory_never_gives_less(model: Path, engine: Engine, available: int, more: int) -> None:
    assert fit_or_nothing(model, engine, available).kv_bytes <= fit_or_nothing(model, engine, available + more).kv_bytes


def test_a_given_budget_is_the_budget() -> None:
    assert budget.available(123) == 123


def test_else_it_is_three_fifths_of_what_is_free(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16384 kB\nMemAvailable:   10240 kB\nBuffers:  1 kB\n")
    assert budget.available(0, meminfo) == 6 * MiB
    assert 0 < budget.available(0) < 2**50


def test_a_machine_that_does_not_say_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(OutOfMemory, match="--memory-budget"):
        budget.available(0, tmp_path / "meminfo")


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """A machine on which 800 MiB are free."""
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: 9999999 kB\nMemAvailable:   {800 * 1024} kB\n")
    return file


@pytest.mark.parametrize(("n_models", "promised", "n"), [(1, 0, 100), (2, 0, 50), (1, 400, 50), (1, 900, 0)])
def test_caches_get_a_quarter_of_what_nobody_was_promised(meminfo: Path, n_models: int, promised: int, n: int) -> None:
    config = Config(models=Models(replicas=2))
    assert budget.cache_ram(config, n_models, promised * MiB, meminfo) == n * MiB


def test_caches_get_what_was_asked_for(meminfo: Path) -> None:
    assert budget.cache_ram(Config(engine=Engine(cache_ram=5)), 3, 7, meminfo) == 5
