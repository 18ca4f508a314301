"""Small models of every kind that `convert` speaks of, with random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.tasks.vit import VisionTransformer


class SelfAttention(nn.Module):
    """Fused attention with whatever extra arguments the test wants."""

    def __init__(self, width: int = 24, heads: int = 4, groups: int | None = None, **options: object) -> None:
        super().__init__()
        self.heads, self.groups, self.options = heads, groups or heads, options
        size = width // heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, size * self.groups)
        self.v = nn.Linear(width, size * self.groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (layer(x).unflatten(-1, (self.groups, -1)).transpose(1, 2) for layer in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)
        return y.transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    """PyTorch's own encoder, fast path included."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first and not norm_first)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class Unfused(nn.Module):
    """Attention written as two products, which is not understood yet."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.inner = _Products()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


class _Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v


def vit(seed: int = 0) -> VisionTransformer:
    """A tiny vision transformer whose output depends on everything."""
    torch.manual_seed(seed)
    model = VisionTransformer(size=12, patch=4, width=24, depth=2, heads=3, classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()
