"""GGUF files made by hand: small, real, and as wrong as a test wants them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import pack
from typing import NamedTuple

MAGIC = b"GGUF"
STRING, ARRAY, UINT32, INT32, FLOAT32 = 8, 9, 4, 5, 6
ALIGNMENT = 32
F16 = 1

Plain = int | float | str | Sequence[int] | Sequence[str]


class Weights(NamedTuple):
    """A tensor of zeros."""

    name: str
    shape: tuple[int, ...] = (64, 32)
    kind: int = F16
    n_bytes: int = 64 * 32 * 2


LLAMA: Mapping[str, Plain] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.file_type": 1,
    "llama.block_count": 4,
    "llama.context_length": 8192,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 4,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
"""K and V rows of 32 numbers in each of 4 layers: 512 bytes of KV per token as F16."""

TENSORS = (Weights("token_embd.weight"), Weights("output_norm.weight", (64,), 0, 256))


def text(words: str) -> bytes:
    return pack("<Q", len(words.encode())) + words.encode()


def value(plain: Plain) -> bytes:
    """A metadata value with its type in front."""
    match plain:
        case str():
            return pack("<I", STRING) + text(plain)
        case float():
            return pack("<If", FLOAT32, plain)
        case int() if plain < 0:
            return pack("<Ii", INT32, plain)
        case int():
            return pack("<II", UINT32, plain)
    items = b"".join(text(item) if isinstance(item, str) else pack("<I", item) for item in plain)
    kind = STRING if plain and isinstance(plain[0], str) else UINT32
    return pack("<IIQ", ARRAY, kind, len(plain)) + items


def gguf_bytes(metadata: Mapping[str, Plain] = LLAMA, tensors: Sequence[Weights] = TENSORS, version: int = 3) -> bytes:
    """A whole file."""
    head = MAGIC + pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text(key) + value(plain) for key, plain in metadata.items())
    offset = 0
    for tensor in tensors:
        head += text(tensor.name) + pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += pack("<IQ", tensor.kind, offset)
        offset += padded(tensor.n_bytes)
    return head.ljust(padded(len(head)), b"\0") + bytes(offset)


def padded(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def write_gguf(path: Path, changes: Mapping[str, Plain] | None = None, tensors: Sequence[Weights] = TENSORS) -> Path:
    """A small model at `path`, with some of its metadata changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes({**LLAMA, **(changes or {})}, tensors))
    return path
