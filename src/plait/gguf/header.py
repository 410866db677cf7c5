"""What a header says of its model: counts, types, and what each layer caches."""

from collections import Counter
from pathlib import Path
from typing import TypeGuard

from msgspec import Struct

from plait.gguf.cursor import Array, GGUFError, Value
from plait.gguf.types import FILE_TYPES

MAX_LAYERS = 512
"""llama.cpp's own limit."""

_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
"""Architectures whose state does not grow with the text."""


class Tensor(Struct, frozen=True):
    """One tensor; `offset` is counted from where the file's header ends."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_elements: int
    n_bytes: int


class KVRow(Struct, frozen=True):
    """How many numbers one layer caches of one token."""

    n_k: int
    n_v: int


class Header(Struct, frozen=True, kw_only=True):
    """All that is known of a model before it is loaded. Of a split model: of all its parts."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: list[Tensor]
    data_offset: int
    """Where the first file's header ends and its tensors begin."""
    n_file_bytes: int

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        return self.text("general.name")

    @property
    def n_params(self) -> int:
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def n_tensor_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """The file's type as its maker said it, else the type of most of its bytes; empty when it has no tensors."""
        said = self.number("general.file_type", -1)
        if any(tensor.type == "I2_S" for tensor in self.tensors):
            return "I2_S"  # bitnet.cpp's numbers for whole files are others
        if 0 <= said < len(FILE_TYPES) and FILE_TYPES[said] != "-":
            return FILE_TYPES[said]
        weight = Counter[str]()
        for tensor in self.tensors:
            weight[tensor.type] += tensor.n_bytes
        return max(weight, key=lambda kind: weight[kind], default="")

    @property
    def n_vocab(self) -> int:
        match self.metadata.get("tokenizer.ggml.tokens"):
            case Array(n):
                return n
            case _:
                return self.number(f"{self.architecture}.vocab_size", 0)

    @property
    def n_layers(self) -> int:
        n = self.own("block_count", 0)
        if n > MAX_LAYERS:
            raise GGUFError(f"{self.path}: {n} layers; {MAX_LAYERS} is the most")
        return n

    def number(self, key: str, default: int) -> int:
        """A whole number of the metadata."""
        value = self.metadata.get(key, default)
        if is_whole(value):
            return value
        raise GGUFError(f"{self.path}: {key!r} is not a whole number")

    def text(self, key: str) -> str:
        """A text of the metadata; empty when there is none."""
        value = self.metadata.get(key, "")
        if isinstance(value, str):
            return value
        raise GGUFError(f"{self.path}: {key} is not a text")

    def own(self, key: str, default: int) -> int:
        """A count of this architecture's, such as `block_count`."""
        value = self.number(f"{self.architecture}.{key}", default)
        if value < 0:
            raise GGUFError(f"{self.path}: {key} is {value}")
        return value

    def per_layer(self, key: str) -> list[int]:
        """A count of each layer's, which the file gives once or once a layer; zeros when it does not give it."""
        value = self.metadata.get(f"{self.architecture}.{key}", 0)
        counts = value[: self.n_layers] if isinstance(value, tuple) else (value,) * self.n_layers
        whole = [count for count in counts if is_whole(count) and count >= 0]
        if len(whole) < self.n_layers:
            raise GGUFError(f"{self.path}: {key} is neither a count, nor one for each of {self.n_layers} layers")
        return whole

    def kv_rows(self) -> list[KVRow]:
        """What each layer caches of one token; nothing where a layer keeps a state instead."""
        if self.architecture in _RECURRENT:
            return [KVRow(0, 0)] * self.n_layers
        n_heads = max(self.per_layer("attention.head_count"), default=0)
        row = self.own("embedding_length", 0) // max(n_heads, 1)
        k, v = self.own("attention.key_length", row), self.own("attention.value_length", row)
        interval = max(self.own("full_attention_interval", 1), 1)
        heads_kv = "attention.head_count_kv"
        is_said = f"{self.architecture}.{heads_kv}" in self.metadata
        return [
            KVRow(n * k, n * v) if (layer + 1) % interval == 0 else KVRow(0, 0)
            for layer, n in enumerate(self.per_layer(heads_kv if is_said else "attention.head_count"))
        ]


def is_whole(value: object) -> TypeGuard[int]:
    """A bool is an `int` to Python, and no count to us."""
    return isinstance(value, int) and not isinstance(value, bool)
