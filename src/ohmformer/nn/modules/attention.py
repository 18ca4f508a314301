"""Attention whose K and V are written into crossbars; softmax stays digital and exact.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N keys, d and e features; `...` are axes
that hold samples and heads in any order (see `ohmformer.capture.batch_axis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.masks import allowed, seen_keys, shows_nothing
from ohmformer.errors import BadInput
from ohmformer.nn.modules.grouped_query import every_head, multiply
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.weight import samples_in
from ohmformer.nn.shared.state import State
from ohmformer.precision import widened


@dataclass(eq=False)
class AttentionSite:
    """One attention of a model.

    Attributes:
        name: of the module, with `#n` for its n-th attention after the first.
        key: K on crossbars; None if Q K^T stays digital.
        value: V on crossbars; None if P V stays digital.
        state: what the whole model shares.
        batch_axis: the batch axis of queries [..., M, d].
        groups: heads of K and V, without copies of them for the heads of queries; None if not known.
    """

    name: str
    key: KVOperand | None
    value: KVOperand | None
    state: State
    batch_axis: BatchAxis = FIRST
    groups: int | None = None

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
    ) -> tuple[Tensor, Tensor]:
        """`scaled_dot_product_attention` of a query [..., M, d], keys [..., N, d] and values [..., N, e].

        The other arguments are those of the function of PyTorch.

        Returns:
            The result [..., M, e], and the attention weights [B, H, M, N].

        Raises:
            BadInput: heads do not match, or nothing tells which rows belong to which sample.
        """
        refuse_hidden(self.name, query, key, value)
        if query.numel() == 0 or key.numel() == 0:  # an empty batch, or no tokens
            rows = query.shape[:-1]
            return query.new_zeros(*rows, value.shape[-1]), query.new_zeros(*rows, key.shape[-2])
        B, dtype, lead = self._samples(query), query.dtype, query.shape[:-2]
        if query.dim() > 3:  # samples that share their keys and values
            key, value = (t.expand(*lead[:-1], *t.shape[-3:]) if t.dim() == query.dim() else t for t in (key, value))
        visible = self._aligned(attn_mask, query, B)
        query, key, value = (self.batch_axis.to_heads(widened(t, self.name), B) for t in (query, key, value))
        H, N = query.shape[1], key.shape[-2]
        if key.shape[1] not in (1, H) and not enable_gqa:
            raise BadInput(f"{self.name}: {H} heads of queries meet {key.shape[1]} of keys; pass enable_gqa=True")
        mask, valid = additive_mask(visible, query, N, is_causal), None if visible is None else seen_keys(visible)
        # Minus infinity makes rows that see nothing zero; a softmax of other numbers spreads them over all keys.
        spread = visible is not None and visible.is_floating_point() and _spreads(visible)
        scores = (
            query @ every_head(key, H).transpose(-2, -1)
            if self.key is None
            else multiply(self.key, query, key, self.groups, valid, sees_unwritten=spread)
        )
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        weights = softmax(scores * scale if scores.requires_grad else scores.mul_(scale), mask)
        p = F.dropout(weights, dropout_p) if dropout_p > 0 else weights
        if self.value is None:
            output = p @ every_head(value, H)
        else:
            value = value if self.value.write == "right" else value.transpose(-2, -1)
            output = multiply(self.value, p, value, self.groups, valid, sees_unwritten=spread)
        return self.batch_axis.from_heads(output, lead).to(dtype), weights

    def _samples(self, query: Tensor) -> int:
        """The number of samples in a query."""
        samples = samples_in(query, self.batch_axis, self.state) if query.dim() > 2 else None
        if samples is None:
            names = "" if self.state.samples is None else f" for {self.state.samples} samples"
            raise BadInput(
                f"{self.name}: attention on queries of shape {tuple(query.shape)}{names}: cannot tell which rows "
                "belong to which sample; name one sample per row, or keep it digital with "
                f"rules={{{self.name.partition('#')[0]!r}: None}}"
            )
        return samples

    def _aligned(self, mask: Tensor | None, query: Tensor, B: int) -> Tensor | None:
        """A mask that broadcasts against [B, H, M, N], from one that does against [..., M, N] of the caller's query."""
        if mask is None:
            return None
        mask = mask[(None,) * (query.dim() - mask.dim())]
        if query.dim() == 4 and self.batch_axis == FIRST and query.shape[0] == B:
            return mask
        return self.batch_axis.to_heads(mask.expand(*query.shape[:-2], *mask.shape[-2:]), B)


def _spreads(mask: Tensor) -> bool:
    """True if a row of an additive mask [..., M, N] hides all keys by finite numbers, not by minus infinity."""
    return shows_nothing(allowed(mask) | torch.isneginf(mask).all(dim=-1, keepdim=True))


def additive_mask(mask: Tensor | None, q: Tensor, keys: int, is_causal: bool) -> Tensor | None:
    """A boolean, float or causal mask as a tensor to add to scores [B, H, M, keys]; None if nothing is hidden."""
    if is_causal:
        allowed = torch.ones(q.shape[-2], keys, dtype=torch.bool, device=q.device).tril()
        causal = torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, -torch.inf)
        extra = additive_mask(mask, q, keys, False)
        return causal if extra is None else causal + extra
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    return mask.to(q.dtype)


def softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of scores [B, H, M, N] over keys, with a mask that is added to them; None for none.

    A row whose keys are all masked gives zeros, as fused attention does.
    """
    if mask is None:
        return scores.softmax(dim=-1)
    dead = torch.isneginf(mask).all(dim=-1, keepdim=True)
    if not bool(dead.any()):  # masks are small, as heads share them, and filling all scores is not cheap
        return (scores + mask).softmax(dim=-1)
    return (scores + mask).masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
