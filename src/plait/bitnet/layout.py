"""How ternary weights are packed: bitnet.cpp's I2_S, llama.cpp's TQ2_0, and Q8_0 for the head. Pure.

Codes are 0, 1 and 2 for -1, 0 and 1, four to a byte. Where which code stands in its byte is all that differs, so that
one becomes the other by moving bits.
"""

import numpy as np
from numpy.typing import NDArray

from plait.config import I2SLayout

Bytes = NDArray[np.uint8]

TAIL_BYTES = 32
"""Behind the codes of an I2_S tensor: its scale, a little-endian float, and 28 bytes that mean nothing."""
BLOCK = 256
"""Weights of a TQ2_0 block: 64 bytes of codes and a half float that they are multiplied with."""
CODE_BYTES = BLOCK // 4
ONE = np.array([0x00, 0x3C], np.uint8)
"""1.0 as a half float: the tensor's scale is a number of its own, which a half float could not hold exactly."""
Q8_BLOCK = 32

_HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""All half floats there are, by their bits."""
_LOW = np.uint64(0x0303030303030303)
_ODD = np.uint64(0x5555555555555555)


def has_code_3(packed: Bytes) -> bool:
    """Whether two bits somewhere are 3, which is no weight. `packed` has a multiple of 8 bytes."""
    words = packed.view(np.uint64)
    return bool((words & (words >> np.uint64(1)) & _ODD).any())


def tq2_0(packed: Bytes, layout: I2SLayout) -> Bytes:
    """TQ2_0 blocks, (n, 66), of the same codes as these I2_S bytes, which are a multiple of 64."""
    words = packed.view(np.uint64)
    turned = _from_x86(words) if layout == "x86" else _from_arm(words)
    blocks = np.empty((len(packed) // CODE_BYTES, CODE_BYTES + 2), np.uint8)
    blocks[:, :CODE_BYTES] = turned.view(np.uint8).reshape(-1, CODE_BYTES)
    blocks[:, CODE_BYTES:] = ONE
    return blocks


def _field(words: NDArray[np.uint64], shift: int) -> NDArray[np.uint64]:
    """The codes at one place of every byte, at the lowest place."""
    return (words >> np.uint64(shift)) & _LOW


def _from_x86(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """128 weights in 32 bytes, as in TQ2_0, but the first 32 are in the highest bits instead of the lowest."""
    turned = _field(words, 6)
    for shift, place in ((4, 2), (2, 4), (0, 6)):
        turned |= _field(words, shift) << np.uint64(place)
    return turned


def _from_arm(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 weights in 16 bytes, the first 16 in the highest bits: two such groups make 32 bytes of TQ2_0."""
    first, second = words.reshape(-1, 2, 2).transpose(1, 0, 2)
    halves = [
        _field(first, high)
        | _field(first, low) << np.uint64(2)
        | _field(second, high) << np.uint64(4)
        | _field(second, low) << np.uint64(6)
        for high, low in ((6, 2), (4, 0))
    ]
    return np.stack(halves, axis=1).reshape(-1)


def pack_i2_s(codes: Bytes, scale: float, layout: I2SLayout = "x86") -> bytes:
    """An I2_S tensor as bitnet.cpp writes it; what means nothing in its tail is not zero."""
    n = 128 if layout == "x86" else 64
    fields = codes.reshape(-1, 4, n // 4)
    packed = fields[:, 0] << 6 | fields[:, 1] << 4 | fields[:, 2] << 2 | fields[:, 3]
    return packed.tobytes() + np.float32(scale).tobytes() + b"\xee" * (TAIL_BYTES - 4)


def q8_0(values: NDArray[np.float32]) -> Bytes:
    """Q8_0 blocks, (n, 34): of each 32 values a half float for the largest, and all in 127ths of it."""
    blocks = values.reshape(-1, Q8_BLOCK)
    # Of several ways to find each row's largest, the quickest.
    d = np.maximum.reduceat(np.abs(values.reshape(-1)), np.arange(0, values.size, Q8_BLOCK)) / np.float32(127)
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d > 0)
    out = np.empty((len(blocks), Q8_BLOCK + 2), np.uint8)
    out[:, :2] = d.astype(np.float16)[:, None].view(np.uint8)
    codes = blocks * inverse[:, None]
    out[:, 2:] = np.rint(codes, out=codes).astype(np.int8).view(np.uint8)
    return out


def from_halves(data: Bytes) -> NDArray[np.float32]:
    """The floats that these half floats are. Looking them up is twice as fast as numpy's conversion."""
    floats: NDArray[np.float32] = np.take(_HALVES, data.view(np.uint16))
    return floats


def from_bfloats(data: Bytes) -> NDArray[np.float32]:
    """The floats whose upper halves these are."""
    return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
