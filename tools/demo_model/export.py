"""Writes the trained network, its tokenizer and its chat template as one GGUF file."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer

from tools.demo_model.corpus import CHAT_TEMPLATE, SPECIAL_TOKENS
from tools.demo_model.model import Llama, Shape


def write_gguf(path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    """Write everything a llama.cpp program needs to talk with the model."""
    writer = GGUFWriter(path, "llama")
    _add_description(writer)
    _add_shape(writer, model.shape)
    _add_tokenizer(writer, tokenizer)
    for name, values in _named_tensors(model):
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_description(writer: GGUFWriter) -> None:
    writer.add_name("Plait demo")
    writer.add_basename("plait-demo")
    writer.add_author("The Plait authors")
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_size_label("3M")
    writer.add_description(
        "A very small model that tells little English stories and chats a little. "
        "It was trained from nothing on generated stories, to try a server without a download."
    )


def _add_shape(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = described["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [TokenType.CONTROL if t in SPECIAL_TOKENS else TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _named_tensors(model: Llama) -> Iterator[tuple[str, numpy.ndarray]]:
    """Yield each weight under the name that llama.cpp looks for."""
    shape = model.shape
    n_q, n_kv = shape.n_head * shape.n_head_dim, shape.n_head_kv * shape.n_head_dim
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        stem = name.removesuffix(".weight").replace("blocks.", "blk.")
        if stem.endswith("attn.qkv"):
            q, k, v = numpy.split(values, (n_q, n_q + n_kv))
            stem = stem.removesuffix(".qkv")
            yield f"{stem}_q.weight", _neighbours(q, shape)
            yield f"{stem}_k.weight", _neighbours(k, shape)
            yield f"{stem}_v.weight", v
        elif stem.endswith("gate_up"):
            gate, up = numpy.split(values, 2)
            stem = stem.removesuffix("gate_up")
            yield f"{stem}ffn_gate.weight", gate
            yield f"{stem}ffn_up.weight", up
        else:
            renamed = stem.replace("attn.output", "attn_output").replace(".down", ".ffn_down")
            yield f"{renamed}.weight", values


def _neighbours(rows: numpy.ndarray, shape: Shape) -> numpy.ndarray:
    """Reorder each head's rows so that rotary pairs are neighbours, as llama.cpp turns them."""
    heads = rows.reshape(-1, 2, shape.n_head_dim // 2, shape.n_embd)
    return numpy.ascontiguousarray(heads.swapaxes(1, 2).reshape(rows.shape))
