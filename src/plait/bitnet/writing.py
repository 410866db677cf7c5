"""A GGUF file's bytes up to its tensors. Pure: values in, bytes out."""

import struct
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from plait.gguf import TYPES

ALIGNMENT = 32
NUMBERS = {kind.name: number for number, kind in TYPES.items()}
"""Tensor types by name."""

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

Value = str | bool | int | float | Sequence[str] | Sequence[int]


class Described(Struct, frozen=True):
    """A tensor that is to be written; `kind` is the name of its type."""

    name: str
    shape: tuple[int, ...]
    kind: str
    n_bytes: int


def text(words: str) -> bytes:
    data = words.encode()
    return struct.pack("<Q", len(data)) + data


def value(plain: Value) -> bytes:
    """A metadata value with its type in front."""
    match plain:
        case str():
            return struct.pack("<I", _STRING) + text(plain)
        case bool():
            return struct.pack("<I?", _BOOL, plain)
        case int():
            return struct.pack("<II", _UINT32, plain)
        case float():
            return struct.pack("<If", _FLOAT32, plain)
    return struct.pack("<I", _ARRAY) + _items(plain)


def _items(plain: Sequence[str] | Sequence[int]) -> bytes:
    kind = _STRING if isinstance(plain[0], str) else _INT32
    items = (text(item) if isinstance(item, str) else struct.pack("<i", item) for item in plain)
    return struct.pack("<IQ", kind, len(plain)) + b"".join(items)


def head(metadata: Mapping[str, bytes], tensors: Sequence[Described]) -> bytes:
    """All that comes before the tensors, which follow each other, each padded to a multiple of 32 bytes."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += (text(key) + raw for key, raw in metadata.items())
    parts += _list(tensors)
    data = b"".join(parts)
    return data + padding(len(data))


def _list(tensors: Sequence[Described]) -> Iterable[bytes]:
    offset = 0
    for tensor in tensors:
        n_dims = len(tensor.shape)
        yield text(tensor.name) + struct.pack(f"<I{n_dims}Q", n_dims, *tensor.shape)
        yield struct.pack("<IQ", NUMBERS[tensor.kind], offset)
        offset += tensor.n_bytes + len(padding(tensor.n_bytes))


def padding(n: int) -> bytes:
    """What follows so many bytes."""
    return bytes(-n % ALIGNMENT)
