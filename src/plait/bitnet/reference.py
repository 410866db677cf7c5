"""BitNet's forward pass in numpy, written from its mathematics: what the kernels' logits are held against.

Weights are as they were before they were packed. How activations are rounded before each ternary matrix can be chosen:
as llama.cpp's kernels do it (`by_block`), or as the model was trained (`by_token`).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plait.bitnet.tiny import Numbers

Gate = Literal["relu2", "silu"]
Floats = NDArray[np.float64]
Rounding = Callable[[Floats], Floats]

EPSILON = 1e-5
ROPE_BASE = 500_000.0


def by_block(x: Floats) -> Floats:
    """Q8_K: blocks of 256; the one that is largest, whatever its sign, becomes -127."""
    blocks = x.reshape(-1, 256).astype(np.float32)
    scale = block_scale(blocks)
    codes = np.minimum(127, np.rint(scale * blocks))
    back = np.divide(codes, scale, out=np.zeros_like(codes), where=scale != 0)
    rounded: Floats = back.reshape(x.shape).astype(np.float64)
    return rounded


def block_scale(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each block, (blocks, 256), is multiplied with before it is rounded: (blocks, 1)."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    return np.divide(np.float32(-127), largest, out=np.zeros_like(largest), where=largest != 0)


def by_token(x: Floats) -> Floats:
    """8 bits, and one factor for a token's whole row."""
    scale = 127 / np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5)
    rounded: Floats = np.clip(np.round(x * scale), -128, 127) / scale
    return rounded


def logits(model: Numbers, tokens: list[int], gate: Gate = "relu2", rounding: Rounding = by_block) -> Floats:
    """Those after each token of one sequence, (tokens, vocabulary)."""
    x = model.plain["token_embd"][tokens].astype(np.float64)
    for i in range(model.shape.n_layer):
        x = x + _attend(model, f"blk.{i}.", x, rounding)
        x = x + _feed_forward(model, f"blk.{i}.", x, gate, rounding)
    x = _normed(x, model.plain["output_norm"])
    if model.wide == "F16":  # the kernel's dot product of half floats takes the other side as half floats, too
        x = x.astype(np.float32).astype(np.float16).astype(np.float64)
    product: Floats = x @ model.plain["token_embd"].T.astype(np.float64)
    return product


def _attend(model: Numbers, block: str, x: Floats, rounding: Rounding) -> Floats:
    shape, n = model.shape, len(x)
    normed = _normed(x, model.plain[block + "attn_norm"])

    def heads(name: str, n_heads: int) -> Floats:
        return _linear(model, block + name, normed, rounding).reshape(n, n_heads, shape.head_size)

    each = shape.n_head // shape.n_head_kv
    turned = _turned if model.is_bitnet else _turned_neighbours
    q = turned(heads("attn_q", shape.n_head))
    k = turned(heads("attn_k", shape.n_head_kv)).repeat(each, axis=1)
    v = heads("attn_v", shape.n_head_kv).repeat(each, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(shape.head_size)
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    seen = np.einsum("hqk,khd->qhd", shares, v).reshape(n, shape.n_embd)
    if model.is_bitnet:
        seen = _normed(seen, model.plain[block + "attn_sub_norm"])
    return _linear(model, block + "attn_output", seen, rounding)


def _feed_forward(model: Numbers, block: str, x: Floats, gate: Gate, rounding: Rounding) -> Floats:
    normed = _normed(x, model.plain[block + "ffn_norm"])
    opened = _linear(model, block + "ffn_gate", normed, rounding)
    opened = np.maximum(opened, 0) ** 2 if gate == "relu2" else opened / (1 + np.exp(-opened))
    inner = opened * _linear(model, block + "ffn_up", normed, rounding)
    if model.is_bitnet:
        inner = _normed(inner, model.plain[block + "ffn_sub_norm"])
    return _linear(model, block + "ffn_down", inner, rounding)


def _linear(model: Numbers, name: str, x: Floats, rounding: Rounding) -> Floats:
    matrix = model.ternary[name]
    weights = matrix.codes.astype(np.float64).T - 1
    product: Floats = rounding(x) @ weights * matrix.scale
    return product


def _normed(x: Floats, weights: NDArray[np.float32]) -> Floats:
    normed: Floats = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON) * weights
    return normed


def _turned(x: Floats) -> Floats:
    """Rotated by each row's position: the first half of a head with the second, as in NEOX."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * ROPE_BASE ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _turned_neighbours(x: Floats) -> Floats:
    """As `_turned`, but each even number of a head with the one after it, as in llama."""
    halves = np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1)
    a, b = np.split(_turned(halves), 2, axis=-1)
    return np.stack([a, b], axis=-1).reshape(x.shape)
