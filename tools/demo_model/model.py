"""The network: a small llama with grouped-query attention and tied embeddings.

Rotary pairs lie half a head apart here, which is quick to compute; llama.cpp turns
neighbours for this architecture, so the export reorders those rows.
"""

# Where torch is not installed its classes have no type, and deriving from them is reported.
# mypy: disable-error-code="misc"

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BOS_ID = 0
_LONGEST_WRITTEN_OUT = 512


@dataclass(frozen=True)
class Shape:
    """The network's sizes; every row is a multiple of 32, as Q8_0 wants."""

    n_vocab: int = 2048
    n_embd: int = 192
    n_layer: int = 6
    n_head: int = 6
    n_head_kv: int = 3
    n_ff: int = 512
    n_ctx: int = 2048
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def n_head_dim(self) -> int:
        return self.n_embd // self.n_head


def rotations(shape: Shape) -> Tensor:
    """Return cosines and sines for each position and pair: (2, n_ctx, n_head_dim / 2)."""
    pair = torch.arange(0, shape.n_head_dim, 2, dtype=torch.float32)
    speed = shape.rope_base ** (-pair / shape.n_head_dim)
    angle = torch.outer(torch.arange(shape.n_ctx, dtype=torch.float32), speed)
    return torch.stack((angle.cos(), angle.sin()))


def rotated(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of a (batch, head, position, dim) tensor."""
    cos, sin = rotation[:, : heads.shape[-2]].to(heads.dtype)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def mask_of(ids: Tensor) -> Tensor:
    """Return minus infinity for what each position must not see: the later and other documents."""
    n_row = ids.shape[-1]
    document = (ids == BOS_ID).cumsum(-1)
    is_other = document[:, None, :, None] != document[:, None, None, :]
    is_hidden = is_other | torch.ones(n_row, n_row, dtype=torch.bool).triu(1)
    return torch.zeros(is_hidden.shape).masked_fill(is_hidden, -torch.inf)


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Mix values by how well keys fit queries."""
    if q.shape[-2] > _LONGEST_WRITTEN_OUT:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # With short rows and small heads this is twice as fast on a CPU as the fused kernel.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores + mask).softmax(-1) @ v


class Attention(nn.Module):
    """Causal self-attention in which query heads share keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        n_heads = shape.n_head + 2 * shape.n_head_kv
        self.qkv = nn.Linear(shape.n_embd, n_heads * shape.n_head_dim, bias=False)
        self.output = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        n_head, n_head_kv = self.shape.n_head, self.shape.n_head_kv
        heads = self.qkv(x).unflatten(-1, (-1, self.shape.n_head_dim)).transpose(1, 2)
        qk, v = torch.split(heads, [n_head + n_head_kv, n_head_kv], dim=1)
        q, k = torch.split(rotated(qk, rotation), [n_head, n_head_kv], dim=1)
        k, v = (part.repeat_interleave(n_head // n_head_kv, dim=1) for part in (k, v))
        mixed = attended(q, k, v, mask.to(q.dtype))
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined


class Block(nn.Module):
    """Attention and a gated feed-forward layer, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_epsilon)
        self.attn = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_epsilon)
        self.gate_up = nn.Linear(shape.n_embd, 2 * shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x), rotation, mask)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        fed: Tensor = x + self.down(functional.silu(gate) * up)
        return fed


class Llama(nn.Module):
    """The whole network: token ids in, logits out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.output_norm = nn.RMSNorm(shape.n_embd, eps=shape.norm_epsilon)
        self.rotation: Tensor
        self.register_buffer("rotation", rotations(shape), persistent=False)
        self._initialise()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embd(ids)
        mask = mask_of(ids)
        for block in self.blocks:
            x = block(x, self.rotation, mask)
        # The embeddings serve as output weights too.
        return functional.linear(self.output_norm(x), self.token_embd.weight)

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                is_last = name.endswith(("output.weight", "down.weight"))
                depth = (2 * self.shape.n_layer) ** 0.5 if is_last else 1.0
                nn.init.normal_(weight, std=0.04 / depth)


def n_parameters(model: nn.Module) -> int:
    """Count the trained numbers."""
    return sum(weight.numel() for weight in model.parameters())
