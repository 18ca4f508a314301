"""Small models of every kind that `convert` speaks of, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ohmformer.models.bundled_vit import VisionTransformer

Past = list[Any] | None


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


class Decoder(nn.Module):
    """A causal model of two layers that writes its attention out, with a cache that callers keep.

    `forward(tokens[B, M], past)` gives logits[B, M, 20], and with `cached` also the cache: (K, V) of each layer.
    """

    def __init__(self, seed: int = 0, *, fused: bool = False, groups: int = 2, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(20, 24)
        self.layers = nn.ModuleList([DecoderLayer(fused=fused, groups=groups, bias=bias) for _ in range(2)])
        self.head = nn.Linear(24, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(
        self, input_ids: Tensor, past_key_values: Past = None, attention_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Past]:
        x = self.embed(input_ids)
        past = past_key_values or [None] * len(self.layers)
        new = []
        for layer, held in zip(self.layers, past, strict=True):
            x, cache = layer(x, held, attention_mask)
            new.append(cache)
        logits = self.head(x)
        return logits if past_key_values is None else (logits, new)


class DecoderLayer(nn.Module):
    def __init__(self, *, fused: bool, groups: int, bias: bool) -> None:
        super().__init__()
        self.fused, self.groups = fused, groups
        self.q, self.out = nn.Linear(24, 24, bias=bias), nn.Linear(24, 24)
        self.k, self.v = nn.Linear(24, 6 * groups), nn.Linear(24, 6 * groups)
        self.norm = nn.LayerNorm(24)
        self.mlp = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None, padding: Tensor | None) -> Any:
        h = self.norm(x)
        q = self.q(h).unflatten(-1, (4, 6)).transpose(1, 2)
        k, v = (layer(h).unflatten(-1, (self.groups, 6)).transpose(1, 2) for layer in (self.k, self.v))
        if past is not None and len(past):
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        M, N = q.shape[2], k.shape[2]
        mask = torch.ones(M, N, dtype=torch.bool, device=x.device).tril(N - M)
        mask = mask if padding is None else mask & padding.bool()[:, None, None, :]
        keys, values = (t.repeat_interleave(4 // self.groups, dim=1) for t in (k, v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        else:
            scores = (q @ keys.transpose(-2, -1)) * 6**-0.5
            y = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1) @ values
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(x), (k, v)


class Checkpointed(nn.Module):
    """The decoder, its layers recomputed in the backward pass or not."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.inner, self.reentrant = Decoder(), reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.inner.embed(tokens)
        for layer in self.inner.layers:

            def run(h: Tensor, layer: Callable[..., tuple[Tensor, object]] = layer) -> Tensor:
                return layer(h, None, None)[0]

            x = run(x) if self.reentrant is None else checkpoint(run, x, use_reentrant=self.reentrant)
        y: Tensor = self.inner.head(x)
        return y
