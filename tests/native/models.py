"""Models of random weights, small enough to be written anew for every run: one per kind of memory, and broken ones.

Their tokenizer is a real one: bytes, and a few merges. The first ids are those of the demo model.
"""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

BOS, END_OF_TEXT, TURN_START, TURN_END = range(4)
CONTROL_TEXTS = ("<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}" + "{# long #}" * 100
N_CTX_TRAIN = 2048
N_EMBD, N_FF, N_LAYER, N_HEAD = 64, 128, 2, 2
HEAD_SIZE = N_EMBD // N_HEAD
"""All heads share one K and V."""
WINDOW = 32
"""Tokens that a layer with a sliding window sees."""
MERGES = ["t h", "th e", "i n", "a n", "an d", "Ġ t", "Ġ the", "Ġ a", "l l", "e r"]


class Writer:
    """One GGUF file in the making, with weights that are the same for the same seed."""

    def __init__(self, path: Path, architecture: str, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.gguf = gguf.GGUFWriter(path, architecture)
        self.gguf.add_name(f"random {architecture}")
        self.gguf.add_context_length(N_CTX_TRAIN)
        self.gguf.add_embedding_length(N_EMBD)

    def weight(self, name: str, *shape: int, scale: float = 1.0) -> None:
        self.tensor(f"{name}.weight", self.drawn(shape, scale))

    def drawn(self, shape: tuple[int, ...], scale: float) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.random.standard_normal(shape, np.float32)
        return (values * np.float32(scale / np.sqrt(shape[-1]))).astype(np.float32, copy=False)

    def embeddings(self, n_silent: int) -> None:
        """One row a token; they give the logits, too. The first `n_silent` are never the greatest of them."""
        values = self.drawn((len(vocabulary()), N_EMBD), 8)
        values[:n_silent] = 0
        self.tensor("token_embd.weight", values)

    def constant(self, name: str, value: float, *shape: int) -> None:
        self.tensor(name, np.full(shape, value, np.float32))

    def tensor(self, name: str, values: NDArray[np.float32]) -> None:
        self.gguf.add_tensor(name, values)

    def finish(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def byte_texts() -> list[str]:
    """How a byte-level vocabulary spells each byte: as itself where that can be read, else as a letter from 256 on."""
    readable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in readable else chr(next(others)) for byte in range(256)]


def vocabulary() -> list[str]:
    return [*CONTROL_TEXTS, *byte_texts(), *(merge.replace(" ", "") for merge in MERGES)]


def write_tokenizer(writer: Writer, pre: str = "gpt-2") -> None:
    tokens = vocabulary()
    types = [gguf.TokenType.CONTROL if token in CONTROL_TEXTS else gguf.TokenType.NORMAL for token in tokens]
    writer.gguf.add_tokenizer_model("gpt2")
    writer.gguf.add_tokenizer_pre(pre)
    writer.gguf.add_token_list(tokens)
    writer.gguf.add_token_types(types)
    writer.gguf.add_token_merges(MERGES)
    writer.gguf.add_bos_token_id(BOS)
    writer.gguf.add_eos_token_id(END_OF_TEXT)
    writer.gguf.add_add_bos_token(True)
    writer.gguf.add_chat_template(TEMPLATE)


def write_llama(
    path: Path,
    *,
    norm: float = 1.0,
    n_head: int = N_HEAD,
    is_causal: bool = True,
    has_tokenizer: bool = True,
    can_end: bool = True,
    pre: str = "gpt-2",
) -> None:
    """Plain attention. `norm`: what the last layer is scaled with. `can_end=False`: control tokens have a logit of 0,
    and there is always another one with a far greater one. `pre`: what cuts texts into words."""
    writer = Writer(path, "llama")
    writer.gguf.add_block_count(N_LAYER)
    writer.gguf.add_feed_forward_length(N_FF)
    writer.gguf.add_head_count(n_head)
    writer.gguf.add_head_count_kv(1)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_rope_dimension_count(N_EMBD // n_head)
    writer.gguf.add_causal_attention(is_causal)
    if has_tokenizer:
        write_tokenizer(writer, pre)
    else:
        writer.gguf.add_tokenizer_model("none")
        writer.gguf.add_vocab_size(len(vocabulary()))
    writer.embeddings(n_silent=0 if can_end else len(CONTROL_TEXTS))
    writer.constant("output_norm.weight", norm, N_EMBD)
    for i in range(N_LAYER):
        write_llama_layer(writer, f"blk.{i}", N_EMBD // n_head)
    writer.finish()


def write_llama_layer(writer: Writer, block: str, head_size: int) -> None:
    writer.constant(f"{block}.attn_norm.weight", 1, N_EMBD)
    writer.constant(f"{block}.ffn_norm.weight", 1, N_EMBD)
    writer.weight(f"{block}.attn_q", N_EMBD, N_EMBD, scale=2)
    writer.weight(f"{block}.attn_k", head_size, N_EMBD, scale=2)
    writer.weight(f"{block}.attn_v", head_size, N_EMBD)
    writer.weight(f"{block}.attn_output", N_EMBD, N_EMBD)
    writer.weight(f"{block}.ffn_gate", N_FF, N_EMBD)
    writer.weight(f"{block}.ffn_up", N_FF, N_EMBD)
    writer.weight(f"{block}.ffn_down", N_EMBD, N_FF)


def write_gemma(path: Path) -> None:
    """Half of its layers see a sliding window of the text only."""
    writer = Writer(path, "gemma2")
    writer.gguf.add_block_count(N_LAYER)
    writer.gguf.add_feed_forward_length(N_FF)
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_head_count_kv(1)
    writer.gguf.add_key_length(HEAD_SIZE)
    writer.gguf.add_value_length(HEAD_SIZE)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_sliding_window(WINDOW)
    write_tokenizer(writer)
    writer.embeddings(n_silent=0)
    writer.constant("output_norm.weight", 1, N_EMBD)
    for i in range(N_LAYER):
        write_llama_layer(writer, f"blk.{i}", HEAD_SIZE)
        for name in ("post_attention_norm", "post_ffw_norm"):
            writer.constant(f"blk.{i}.{name}.weight", 1, N_EMBD)
    writer.finish()


def write_mamba(path: Path) -> None:
    """A recurrent model: one state for all tokens so far."""
    n_inner, n_state, n_conv, rank = 2 * N_EMBD, 16, 4, 4
    writer = Writer(path, "mamba")
    writer.gguf.add_block_count(N_LAYER)
    writer.gguf.add_feed_forward_length(0)
    writer.gguf.add_head_count(0)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_ssm_conv_kernel(n_conv)
    writer.gguf.add_ssm_inner_size(n_inner)
    writer.gguf.add_ssm_state_size(n_state)
    writer.gguf.add_ssm_time_step_rank(rank)
    write_tokenizer(writer)
    writer.weight("token_embd", len(vocabulary()), N_EMBD, scale=8)
    writer.constant("output_norm.weight", 1, N_EMBD)
    for i in range(N_LAYER):
        block = f"blk.{i}"
        writer.constant(f"{block}.attn_norm.weight", 1, N_EMBD)
        writer.weight(f"{block}.ssm_in", 2 * n_inner, N_EMBD)
        writer.weight(f"{block}.ssm_conv1d", n_inner, n_conv)
        writer.constant(f"{block}.ssm_conv1d.bias", 0, n_inner)
        writer.weight(f"{block}.ssm_x", rank + 2 * n_state, n_inner)
        writer.weight(f"{block}.ssm_dt", n_inner, rank)
        writer.constant(f"{block}.ssm_dt.bias", 0, n_inner)
        writer.constant(f"{block}.ssm_a", -1, n_inner, n_state)
        writer.constant(f"{block}.ssm_d", 1, n_inner)
        writer.weight(f"{block}.ssm_out", N_EMBD, n_inner)
    writer.finish()


def write_encoder(path: Path) -> None:
    """An encoder without a decoder."""
    writer = Writer(path, "t5encoder")
    writer.gguf.add_block_count(1)
    writer.gguf.add_feed_forward_length(N_FF)
    writer.gguf.add_head_count(N_HEAD)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_relative_attn_buckets_count(32)
    write_tokenizer(writer)
    writer.weight("token_embd", len(vocabulary()), N_EMBD)
    writer.constant("enc.output_norm.weight", 1, N_EMBD)
    writer.constant("enc.blk.0.attn_norm.weight", 1, N_EMBD)
    writer.constant("enc.blk.0.ffn_norm.weight", 1, N_EMBD)
    for name in ("attn_q", "attn_k", "attn_v", "attn_o"):
        writer.weight(f"enc.blk.0.{name}", N_EMBD, N_EMBD)
    writer.weight("enc.blk.0.ffn_up", N_FF, N_EMBD)
    writer.weight("enc.blk.0.ffn_down", N_EMBD, N_FF)
    writer.finish()
