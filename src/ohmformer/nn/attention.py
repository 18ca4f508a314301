"""Attention whose K and V are written into crossbars for every input; softmax stays digital and exact.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N keys, d and e features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ohmformer.errors import BadInput
from ohmformer.nn.dynamic import DynamicOperand


@dataclass(eq=False)
class AttentionSite:
    """One attention of a model: where its K and its V live.

    Attributes:
        name: of the module, with `#n` for its n-th attention after the first.
        key: K on crossbars, or None where Q K^T stays digital.
        value: V on crossbars, or None where P V stays digital.
    """

    name: str
    key: DynamicOperand | None
    value: DynamicOperand | None

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """`scaled_dot_product_attention` of q[B, H, M, d], k[B, G, N, d], v[B, G, N, e]: [B, H, M, e]."""
        output, _ = self.attend_with_weights(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return output

    def attend_with_weights(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        dropout_p: float,
        is_causal: bool,
        scale: float | None,
        enable_gqa: bool,
    ) -> tuple[Tensor, Tensor]:
        """`attend`, and the attention weights [B, H, M, N]."""
        dtype, shape = query.dtype, query.shape
        q, k, v = (four_axes(t.float() if dtype in (torch.float16, torch.bfloat16) else t) for t in (query, key, value))
        heads, groups = q.shape[1], k.shape[1]
        if heads != groups and not enable_gqa:
            raise BadInput(f"{self.name}: {heads} heads of queries meet {groups} of keys; pass enable_gqa=True")
        allowed = aligned(attn_mask, query)
        mask = additive_mask(allowed, q, k, is_causal)
        valid = written_tokens(allowed)
        scores = self._grouped(self.key, q, k, valid, groups, _scores)
        scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = softmax(scores if mask is None else scores + mask)
        dropped = F.dropout(weights, dropout_p) if dropout_p > 0 else weights
        output = self._grouped(self.value, dropped, v, valid, groups, _mix)
        return output.reshape(*shape[:-1], v.shape[-1]).to(dtype), weights

    def _grouped(
        self,
        operand: DynamicOperand | None,
        x: Tensor,
        tokens: Tensor,
        valid: Tensor | None,
        groups: int,
        digital: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Inputs x[B, H, M, .] with tokens[B, G, N, .], each written head serving H / G heads of inputs."""
        B, H, M, I = x.shape
        grouped = x.reshape(B, groups, H // groups * M, I)
        y = digital(grouped, tokens) if operand is None else operand.product(grouped, tokens, valid)
        return y.reshape(B, H, M, y.shape[-1])


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)


def _mix(p: Tensor, v: Tensor) -> Tensor:
    return p @ v


def four_axes(t: Tensor) -> Tensor:
    """[B, N, d] to [B, 1, N, d]; more leading axes than B and H are folded into H."""
    if t.dim() < 3:
        raise BadInput(f"attention on tensors of shape {tuple(t.shape)} has no axis of samples; add a batch dimension")
    return t.unsqueeze(1) if t.dim() == 3 else t.flatten(1, -3)


def additive_mask(mask: Tensor | None, q: Tensor, k: Tensor, is_causal: bool) -> Tensor | None:
    """Boolean, float or causal mask as something to add to scores [B, H, M, N]."""
    if is_causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        causal = torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, -torch.inf)
        extra = additive_mask(mask, q, k, False)
        return causal if extra is None else causal + extra
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    return mask.to(q.dtype)


def aligned(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """A mask that broadcasts against [..., M, N] of the caller's query, as one that does against [B, H, M, N]."""
    if mask is None:
        return None
    mask = mask[(None,) * (query.dim() - mask.dim())]
    if query.dim() == 3:
        return mask.unsqueeze(1)
    return (
        mask.expand(*mask.shape[:1], *query.shape[1:-2], *mask.shape[-2:]).flatten(1, -3) if query.dim() > 4 else mask
    )


def written_tokens(mask: Tensor | None) -> Tensor | None:
    """Which tokens [B or 1, 1, N, 1] any query of the sample may see: the others are padding."""
    if mask is None:
        return None
    allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return allowed.any(dim=-2).any(dim=1)[:, None, :, None]


def softmax(scores: Tensor) -> Tensor:
    """Softmax over keys; a row in which every key is masked gives zeros, as fused attention does."""
    dead = torch.isneginf(scores).all(dim=-1, keepdim=True)
    return scores.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)


class AttentionMode(TorchFunctionMode):
    """Sends the fused attentions of one module's forward to their sites, in the order of their calls."""

    def __init__(self, sites: list[AttentionSite]) -> None:
        super().__init__()
        self.sites = sites
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `scaled_dot_product_attention`; let everything else pass."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        if self.calls >= len(self.sites):
            name = self.sites[0].name
            raise BadInput(f"{name}: more attentions than with the sample batch; convert with a sample that uses all")
        self.calls += 1
        return self.sites[self.calls - 1].attend(*args, **(kwargs or {}))


@cache
def crossbar_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of an attention module's class whose forward runs under `AttentionMode`."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with AttentionMode(self.attention_sites):
            return cls.forward(self, *args, **kwargs)

    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (cls,), self.__dict__

    methods = {"forward": forward, "__reduce__": reduce, "__module__": cls.__module__}
    subclass: type[nn.Module] = type(f"Crossbar{cls.__name__}", (cls,), methods)
    return subclass


def _blank(cls: type[nn.Module]) -> nn.Module:
    """An empty attention module of a class on crossbars, for pickle to fill."""
    made = crossbar_class(cls)  # type: ignore[arg-type]
    return made.__new__(made)
