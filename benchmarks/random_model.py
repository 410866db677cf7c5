"""Models of real shape with random weights: speed depends on shapes, not on what a model says.

Written once per shape and quantization into the cache directory, and found there again.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as native
import numpy as np

CONTEXT = 8192
N_SPECIAL = 259
"""Tokens before the first word: control tokens and bytes."""
LETTERS = ["▁", "w", *"0123456789", "▁w"]
"""What words begin as."""
QUANTIZATIONS = {"f16": 1, "q4_0": 2, "q8_0": 7, "q4_k_m": 15}
"""`llama_ftype` by name."""


@dataclass(frozen=True)
class Shape:
    """A llama-architecture model with tied embeddings."""

    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int


SHAPES = {
    "135m": Shape(30, 576, 9, 3, 1536, 32_000),
    "100m": Shape(12, 768, 12, 4, 2048, 32_000),
    "0.5b": Shape(24, 896, 14, 2, 4864, 151_936),
    "tiny": Shape(4, 64, 8, 4, 172, 2_000),
}


def random_model(name: str, quantization: str) -> Path:
    """The file, made if it is not there yet."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "plait" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"words-{name}-{quantization}.gguf"
    if not path.exists():
        wide = folder / f"words-{name}-f16.gguf"
        if not wide.exists():
            write(SHAPES[name], name, wide)
        if quantization != "f16":
            quantize(wide, path, quantization)
    return path


def write(shape: Shape, name: str, path: Path) -> None:
    """Weights with a plausible spread, so that no kernel meets infinities."""
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(temporary, "llama")
    add_metadata(writer, shape, name)
    add_vocabulary(writer, shape.n_vocab)
    add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.rename(path)


def add_metadata(writer: gguf.GGUFWriter, shape: Shape, name: str) -> None:
    writer.add_name(f"random-{name}")
    writer.add_context_length(CONTEXT)
    writer.add_block_count(shape.n_layer)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(QUANTIZATIONS["f16"])


def add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """A SentencePiece-style vocabulary: three control tokens, all bytes, and made-up words: "w7" is one token.

    A word is put together letter by letter, so the vocabulary has each of its beginnings, too: then what was written
    is read again as the same tokens.
    """
    words = LETTERS + [f"▁w{i}" for i in range(n_vocab - N_SPECIAL - len(LETTERS))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words])
    writer.add_token_scores([0.0] * N_SPECIAL + [-float(i) for i in range(len(words))])
    unknown, control, normal, byte = 2, 3, 1, 6
    writer.add_token_types([unknown, control, control] + [byte] * 256 + [normal] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def add_tensors(writer: gguf.GGUFWriter, shape: Shape) -> None:
    rng = np.random.default_rng(0)
    n_kv = shape.n_embd // shape.n_head * shape.n_head_kv

    def matrix(name: str, rows: int, columns: int, spread: float, n_silent: int = 0) -> None:
        weights = rng.standard_normal((rows, columns), dtype=np.float32) * spread
        weights[:n_silent] *= 0.01
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.n_embd, np.float32))

    # What is not a word is never the likeliest token: every answer is words, and as long as it may be.
    matrix("token_embd", shape.n_vocab, shape.n_embd, 0.05, N_SPECIAL + len(LETTERS))
    norm("output_norm")
    narrow, wide = 0.7 / shape.n_embd**0.5, 0.7 / shape.n_ff**0.5
    for i in range(shape.n_layer):
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
        matrix(f"blk.{i}.attn_q", shape.n_embd, shape.n_embd, narrow)
        matrix(f"blk.{i}.attn_k", n_kv, shape.n_embd, narrow)
        matrix(f"blk.{i}.attn_v", n_kv, shape.n_embd, narrow)
        matrix(f"blk.{i}.attn_output", shape.n_embd, shape.n_embd, narrow)
        matrix(f"blk.{i}.ffn_gate", shape.n_ff, shape.n_embd, narrow)
        matrix(f"blk.{i}.ffn_up", shape.n_ff, shape.n_embd, narrow)
        matrix(f"blk.{i}.ffn_down", shape.n_embd, shape.n_ff, wide)


def quantize(source: Path, target: Path, quantization: str) -> None:
    params = native.llama_model_quantize_default_params()
    params.ftype = QUANTIZATIONS[quantization]
    temporary = target.with_suffix(".part")
    code = native.llama_model_quantize(str(source).encode(), str(temporary).encode(), ctypes.byref(params))
    if code:
        raise RuntimeError(f"llama_model_quantize returned {code}")
    temporary.rename(target)
