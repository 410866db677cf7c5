"""BitNet's files as bitnet.cpp would have written them, and what is made of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from plait.bitnet import reference, target, tiny
from plait.bitnet.reference import Floats, Gate
from plait.bitnet.tiny import TINY, Numbers
from plait.bitnet.writing import Value
from plait.config import BitNetHead, I2SLayout


def write_official(
    path: Path,
    numbers: Numbers | None = None,
    architecture: str = "bitnet-b1.58",
    layout: I2SLayout = "x86",
    changes: Mapping[str, Value] | None = None,
    *,
    has_head: bool = False,
) -> Path:
    with path.open("wb") as file:
        tiny.write(numbers or Numbers(TINY), file, architecture, layout, changes, has_head=has_head)
    return path


def convert(source: Path, head: BitNetHead = "f16", layout: I2SLayout = "x86", name: str = "converted.gguf") -> Path:
    path = source.with_name(name)
    target.convert(source, path, head, layout, lambda n_done, n_total: None)
    return path


def border_margin(numbers: Numbers, tokens: list[int], gate: Gate = "relu2") -> float:
    """How much an activation may change, relative to its row, and all still be rounded to the same 8 bits. Where it is
    little, a kernel that sums in another order may round another way, by a whole step."""
    margins: list[float] = []

    def rounding(x: Floats) -> Floats:
        blocks = x.reshape(-1, 256).astype(np.float32)
        scaled = np.abs(reference.block_scale(blocks).astype(np.float64) * blocks)
        typical = np.sqrt((scaled * scaled).mean(axis=1, keepdims=True))
        margins.append(float((np.abs(scaled % 1 - 0.5) / np.maximum(scaled, typical)).min()))
        return reference.by_block(x)

    reference.logits(numbers, tokens, gate, rounding)
    return min(margins)
