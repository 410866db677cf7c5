"""Random ternary models in the layout of the official file: for the self-check at start-up, for tests and benchmarks.

The same seed makes the same model. A model's numbers are kept beside its file, so that `reference` computes with what
was written and not with what was read back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from plait import gguf
from plait.bitnet import layout, writing
from plait.bitnet.writing import Described, Value, value
from plait.config import I2SLayout

Floats = NDArray[np.float32]

BOS, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
END_OF_TURN = "<|eot_id|>"
CONTROL = (BOS, END_OF_TEXT, END_OF_TURN)
OFFICIAL_TEMPLATE = (
    "{% for m in messages %}{{ 'Human: ' + m['content'] + '\\n\\nBITNETAssistant: ' + eos }}{% endfor %}"
)
"""As wrong as that of the official file."""


class Shape(Struct, frozen=True, kw_only=True):
    """A model's dimensions. Widths are multiples of 256."""

    n_layer: int = 2
    n_embd: int = 256
    n_ff: int = 512
    n_head: int = 4
    n_head_kv: int = 2
    n_vocab: int = 272
    n_ctx: int = 2048

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head


TINY = Shape()


class Ternary(Struct, frozen=True):
    """A matrix of codes 0, 1, 2 for -1, 0, 1, and the scale of all."""

    codes: NDArray[np.uint8]
    scale: float


@dataclass(slots=True, eq=False)
class Numbers:
    """A model: ternary matrices and vectors by name, without `.weight`. The owner of `random` makes them once."""

    shape: Shape
    seed: int = 0
    wide: str = "F16"
    """The embedding's type."""
    is_bitnet: bool = True
    """False: blocks are as in llama, without norms before the last matrix of each, and neighbours are rotated."""
    ternary: dict[str, Ternary] = field(default_factory=dict)
    plain: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        shape = self.shape
        embedding = random.standard_normal((shape.n_vocab, shape.n_embd), np.float32)
        embedding = embedding.astype(np.float16).astype(np.float32)
        if self.wide == "BF16":
            embedding = (embedding.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        self.plain["token_embd"] = embedding
        for i in range(shape.n_layer):
            self._add_layer(random, f"blk.{i}.")
        self._add_norm(random, "output_norm", shape.n_embd)

    # In quotes, as numpy loads its random numbers when their type is named, and a worker seldom needs them.
    def _add_layer(self, random: "np.random.Generator", block: str) -> None:
        shape, n_kv = self.shape, self.shape.head_size * self.shape.n_head_kv
        self._add_norm(random, block + "attn_norm", shape.n_embd)
        self._add_ternary(random, block + "ffn_down", shape.n_embd, shape.n_ff)
        self._add_ternary(random, block + "ffn_gate", shape.n_ff, shape.n_embd)
        self._add_ternary(random, block + "ffn_up", shape.n_ff, shape.n_embd)
        self._add_norm(random, block + "ffn_norm", shape.n_embd)
        if self.is_bitnet:
            self._add_norm(random, block + "ffn_sub_norm", shape.n_ff)
            self._add_norm(random, block + "attn_sub_norm", shape.n_embd)
        for name, n_rows in (("k", n_kv), ("output", shape.n_embd), ("q", shape.n_embd), ("v", n_kv)):
            self._add_ternary(random, f"{block}attn_{name}", n_rows, shape.n_embd)

    def _add_norm(self, random: "np.random.Generator", name: str, n: int) -> None:
        self.plain[name] = random.uniform(0.5, 1.5, n).astype(np.float32)

    def _add_ternary(self, random: "np.random.Generator", name: str, n_rows: int, n_columns: int) -> None:
        """Weights that are 0 two times out of five."""
        fifths = random.integers(0, 10, (n_rows, n_columns), np.uint8)
        codes = (fifths >= 3).astype(np.uint8) + (fifths >= 7)
        self.ternary[name] = Ternary(codes, float(np.float32(random.uniform(0.02, 0.08))))


def write(
    model: Numbers,
    file: BinaryIO,
    architecture: str = "bitnet-b1.58",
    i2s_layout: I2SLayout = "x86",
    changes: Mapping[str, Value] | None = None,
    *,
    has_head: bool = False,
) -> None:
    """The file that bitnet.cpp would have. `has_head`: with the embedding a second time, as in early `bitnet-25`."""
    tensors = list(_tensors(model, i2s_layout))
    if has_head:
        (embedding,) = (data for described, data in tensors if described.name == "token_embd.weight")
        rows = (model.shape.n_embd, model.shape.n_vocab)
        tensors.append((Described("output.weight", rows, model.wide, len(embedding)), embedding))
    said = {**metadata(model.shape, architecture), **(changes or {})}
    head = {key: value(plain) for key, plain in said.items()}
    file.write(writing.head(head, [described for described, _ in tensors]))
    for described, data in tensors:
        file.write(data + writing.padding(described.n_bytes))


def _tensors(model: Numbers, i2s_layout: I2SLayout) -> Iterator[tuple[Described, bytes]]:
    for name, plain in model.plain.items():
        kind = model.wide if name == "token_embd" else "F32"
        data = _packed(plain, kind)
        yield Described(f"{name}.weight", plain.shape[::-1], kind, len(data)), data
    for name, matrix in model.ternary.items():
        data = layout.pack_i2_s(matrix.codes, matrix.scale, i2s_layout)
        assert len(data) == gguf.n_bytes("i2_s", matrix.codes.size)
        yield Described(f"{name}.weight", matrix.codes.shape[::-1], "I2_S", len(data)), data


def _packed(plain: Floats, kind: str) -> bytes:
    """Floats that `kind` has room for, as a file has them."""
    match kind:
        case "F16":
            return plain.astype(np.float16).tobytes()
        case "BF16":
            return (plain.view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()
    return plain.tobytes()


def metadata(shape: Shape, architecture: str) -> dict[str, Value]:
    """What the official file says, in its order: no pre-tokenizer, a wrong template, no end of a turn."""
    tokens = vocabulary(shape.n_vocab)
    own: dict[str, Value] = {
        "vocab_size": shape.n_vocab,
        "context_length": shape.n_ctx,
        "embedding_length": shape.n_embd,
        "block_count": shape.n_layer,
        "feed_forward_length": shape.n_ff,
        "rope.dimension_count": shape.head_size,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500_000.0,
    }
    return {
        "general.architecture": architecture,
        "general.name": "tiny",
        **{f"{architecture}.{key}": plain for key, plain in own.items()},
        "tokenizer.ggml.add_bos_token": True,
        "general.file_type": 40,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in CONTROL else 1 for token in tokens],
        "tokenizer.ggml.merges": ["t h", "th e", "i n"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.chat_template": OFFICIAL_TEMPLATE,
        "general.quantization_version": 2,
    }


def vocabulary(n: int) -> list[str]:
    """Control tokens, all bytes as a byte-level vocabulary spells them, three merges, and words that none makes."""
    readable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    spelled = [chr(byte) if byte in readable else chr(next(others)) for byte in range(256)]
    known = [*CONTROL, *spelled, "th", "the", "in"]
    return known + [f"word{i}" for i in range(n - len(known))]
