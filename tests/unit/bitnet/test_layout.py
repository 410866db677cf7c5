"""Weights keep their values, however they are packed."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plait.bitnet import layout
from plait.bitnet.layout import TAIL_BYTES
from plait.config import I2SLayout

LAYOUTS: list[I2SLayout] = ["x86", "arm"]


def packed_by_hand(codes: list[int], n: int) -> bytes:
    """As the formats are described: of `n` weights, weight j is in byte j % (n / 4), the first ones highest."""
    out = bytearray(len(codes) // 4)
    for i, code in enumerate(codes):
        group, j = divmod(i, n)
        out[group * n // 4 + j % (n // 4)] |= code << (6 - 2 * (j // (n // 4)))
    return bytes(out)


def ternary(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = quants.dequantize(blocks, GGMLQuantizationType.TQ2_0)
    return values.reshape(-1)


@pytest.mark.parametrize("i2s_layout", LAYOUTS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_codes_stay_the_same(i2s_layout: I2SLayout, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, 512, np.uint8)
    packed = layout.pack_i2_s(codes, 0.5, i2s_layout)[:-TAIL_BYTES]
    assert packed == packed_by_hand(codes.tolist(), 128 if i2s_layout == "x86" else 64)
    blocks = layout.tq2_0(np.frombuffer(packed, np.uint8), i2s_layout)
    assert ternary(blocks).tolist() == (codes - 1.0).tolist()


@given(place=st.integers(0, 2047))
def test_a_code_of_no_weight_is_found_wherever_it_is(place: int) -> None:
    codes = np.random.default_rng(place).integers(0, 3, 2048, np.uint8)
    packed = [layout.pack_i2_s(codes, 1.0)[:-TAIL_BYTES] for codes[place] in (codes[place], 3)]
    assert [layout.has_code_3(np.frombuffer(data, np.uint8)) for data in packed] == [False, True]


def test_the_scale_stands_behind_the_codes() -> None:
    packed = layout.pack_i2_s(np.zeros(256, np.uint8), 0.0625)
    assert np.frombuffer(packed[64:68], np.float32) == 0.0625
    assert len(packed) == 64 + TAIL_BYTES


@given(seed=st.integers(0, 2**32), largest=st.sampled_from([0.0, 1e-3, 1.0, 6e4]))
def test_bytes_of_the_head_are_those_of_the_gguf_package(seed: int, largest: float) -> None:
    values = (np.random.default_rng(seed).uniform(-1, 1, (4, 64)) * largest).astype(np.float32)
    wanted = quants.quantize(values, GGMLQuantizationType.Q8_0)
    assert np.array_equal(layout.q8_0(values).reshape(wanted.shape), wanted)
