"""From bitnet.cpp's file to one that llama.cpp computes with: the same codes and scales, and the metadata repaired.

Codes become TQ2_0 blocks whose own factor is 1; a tensor's scale becomes a tensor of its own, `….scale`, which is
multiplied with after. Reads and writes blocks of a few megabytes, in the order of the file.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from plait import gguf
from plait.bitnet import layout, metadata, writing
from plait.bitnet.layout import Bytes
from plait.bitnet.writing import Described
from plait.config import BitNetHead, I2SLayout
from plait.errors import ModelLoadFailed
from plait.gguf.bitnet import I2_S
from plait.gguf.cursor import Cursor
from plait.gguf.header import Tensor
from plait.gguf.parse import read

LEAST_SCALE = 1e-8
"""llama-quantize with several threads writes the scale elsewhere, and next to nothing where it belongs."""

_BLOCK_BYTES = 3 * 2**20
"""Read at once, and a multiple of what any type packs together."""
_PROBE_BYTES = 64 * 1024
"""Looked at of each tensor's codes before anything is written."""
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_WIDE: dict[str, Callable[[Bytes], NDArray[np.float32]]] = {
    "F32": lambda data: data.view(np.float32),
    "F16": layout.from_halves,
    "BF16": layout.from_bfloats,
}
"""Types that a head is made smaller from, and how their floats are had."""

Tell = Callable[[int, int], None]
"""Told how many bytes are written, and of how many."""


class Part(Struct, frozen=True):
    """A tensor of the new file, and what it is made of."""

    described: Described
    source: Tensor
    make: Callable[["Conversion", Tensor], Iterator[Bytes]]


class Conversion:
    """One file's conversion; owns the open source. Raises `ModelLoadFailed` for what cannot be converted."""

    def __init__(self, source: Path, head: BitNetHead, i2s_layout: I2SLayout) -> None:
        self.model = gguf.skim(source)
        self.head = head
        self.i2s_layout = i2s_layout
        self._file = source.open("rb", buffering=0)
        try:
            self._refuse()
            parts = [part for tensor in self._tensors() for part in self._parts(tensor)]
            self._parts_to_write = parts
            said = read(source, _raw_metadata)
            self._header = writing.head(metadata.repaired(self.model, said), [part.described for part in parts])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Conversion":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def n_bytes(self) -> int:
        """Of the new file."""
        sizes = (part.described.n_bytes for part in self._parts_to_write)
        return len(self._header) + sum(size + len(writing.padding(size)) for size in sizes)

    def write(self, file: BinaryIO, tell: Tell) -> None:
        """The new file's bytes, from its beginning."""
        n_done = file.write(self._header)
        for part in self._parts_to_write:
            for block in part.make(self, part.source):
                n_done += file.write(block.data)
                tell(n_done, self.n_bytes)
            n_done += file.write(writing.padding(part.described.n_bytes))
        tell(n_done, self.n_bytes)

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse(self) -> None:
        """All that is wrong and can be seen without reading everything."""
        if not gguf.needs_conversion(self.model):
            raise ModelLoadFailed(f"{self.model.path} is not a file of bitnet.cpp's; it can be served as it is")
        if self.model.number("split.count", 1) > 1:
            raise ModelLoadFailed(f"{self.model.path} has several parts; only single I2_S files can be converted")
        packed = [tensor for tensor in self.model.tensors if tensor.type == I2_S]
        if not packed:
            raise ModelLoadFailed(f"{self.model.path} has no I2_S tensors; take the model's ggml-model-i2_s.gguf")
        for tensor in packed:
            if tensor.shape[0] % layout.BLOCK:
                raise ModelLoadFailed(
                    f"{self.model.path}: {tensor.name} has rows of {tensor.shape[0]} weights;"
                    f" only multiples of {layout.BLOCK} can be converted"
                )
            self._scale(tensor)
            next(self._codes(tensor, _PROBE_BYTES))

    def _tensors(self) -> list[Tensor]:
        """Those that are written. Where llama.cpp takes the embedding for the head, a head that is the same goes."""
        tensors = {tensor.name: tensor for tensor in self.model.tensors}
        if metadata.architecture(self.model) == metadata.BITNET and _HEAD in tensors:
            embedding, head = tensors.get(_EMBEDDING), tensors.pop(_HEAD)
            if embedding is None or not self._same(embedding, head):
                raise ModelLoadFailed(
                    f"{self.model.path}: its output head is not its embedding, and llama.cpp's graph of BitNet knows"
                    " only the embedding"
                )
        return list(tensors.values())

    def _same(self, a: Tensor, b: Tensor) -> bool:
        if (a.type, a.shape) != (b.type, b.shape):
            return False
        blocks = zip(self._blocks(a, a.n_bytes), self._blocks(b, b.n_bytes), strict=True)
        return all(np.array_equal(x, y) for x, y in blocks)

    def _parts(self, tensor: Tensor) -> Iterator[Part]:
        """What becomes of a tensor."""
        if tensor.type == I2_S:
            yield self._part(tensor, "TQ2_0", Conversion._ternary)
            scale = Described(tensor.name.removesuffix(".weight") + ".scale", (1,), "F32", 4)
            yield Part(scale, tensor, Conversion._scale_alone)
        elif self.head == "q8_0" and tensor.name == self._head_name() and tensor.type in _WIDE:
            yield self._part(tensor, "Q8_0", Conversion._smaller)
        else:
            yield self._part(tensor, tensor.type, Conversion._as_it_is)

    def _part(self, tensor: Tensor, kind: str, make: Callable[["Conversion", Tensor], Iterator[Bytes]]) -> Part:
        described = Described(tensor.name, tensor.shape, kind, gguf.n_bytes(kind, tensor.n_elements))
        return Part(described, tensor, make)

    def _head_name(self) -> str:
        """The tensor that logits are made with; BitNet's graph makes them with the embedding."""
        has_own = any(tensor.name == _HEAD for tensor in self.model.tensors)
        return _HEAD if has_own and metadata.architecture(self.model) != metadata.BITNET else _EMBEDDING

    # ── what becomes of it ───────────────────────────────────────────────────────────────────────────────────────

    def _ternary(self, tensor: Tensor) -> Iterator[Bytes]:
        for packed in self._codes(tensor, _BLOCK_BYTES):
            yield layout.tq2_0(packed, self.i2s_layout)

    def _scale_alone(self, tensor: Tensor) -> Iterator[Bytes]:
        yield self._scale(tensor).view(np.uint8)

    def _as_it_is(self, tensor: Tensor) -> Iterator[Bytes]:
        yield from self._blocks(tensor, tensor.n_bytes)

    def _smaller(self, tensor: Tensor) -> Iterator[Bytes]:
        for block in self._blocks(tensor, tensor.n_bytes):
            yield layout.q8_0(_WIDE[tensor.type](block))

    def _scale(self, tensor: Tensor) -> NDArray[np.float32]:
        scale = self._read(tensor, tensor.n_elements // 4, 4).view(np.float32)
        if not LEAST_SCALE < scale[0] < math.inf:
            raise ModelLoadFailed(
                f"{self.model.path}: the scale of {tensor.name} is {scale[0]:g}; files that llama-quantize wrote with"
                " several threads are like that"
            )
        return scale

    def _codes(self, tensor: Tensor, n_at_once: int) -> Iterator[Bytes]:
        for packed in self._blocks(tensor, tensor.n_elements // 4, n_at_once):
            if layout.has_code_3(packed):
                raise ModelLoadFailed(f"{self.model.path}: {tensor.name} has codes of no weight")
            yield packed

    def _blocks(self, tensor: Tensor, n_bytes: int, n_at_once: int = _BLOCK_BYTES) -> Iterator[Bytes]:
        """The first bytes of a tensor, so many at once."""
        for at in range(0, n_bytes, n_at_once):
            yield self._read(tensor, at, min(n_at_once, n_bytes - at))

    def _read(self, tensor: Tensor, at: int, n: int) -> Bytes:
        data = os.pread(self._file.fileno(), n, self.model.data_offset + tensor.offset + at)
        if len(data) < n:
            raise ModelLoadFailed(f"{self.model.path} became shorter while it was read")
        return np.frombuffer(data, np.uint8)


def _raw_metadata(cursor: Cursor) -> dict[str, bytes]:
    """Every value as it stands in the file, with its type in front."""
    cursor.skip(8)
    cursor.u64()
    said = {}
    for _ in range(cursor.u64()):
        key, begin = cursor.string(), cursor.at
        cursor.value(cursor.u32())
        said[key] = bytes(cursor.data[begin : cursor.at])
    return said
