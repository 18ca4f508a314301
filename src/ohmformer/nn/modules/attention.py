"""Attention whose K and V are written into crossbars; softmax stays digital and exact.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N keys, d and e features; `...` are axes
that hold samples and heads in any order (see `ohmformer.capture.batch_axis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.array.encoding import widened
from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.capture.masks import allowed, seen_keys, shows_nothing
from ohmformer.errors import BadInput
from ohmformer.nn.modules.grouped_query import every_head, multiply, unwritten
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import samples_in


@dataclass(eq=False)
class AttentionSite:
    """One attention of a model: where its K and its V live.

    Attributes:
        name: of the module, with `#n` for its n-th attention after the first.
        key: K on crossbars, or None where Q K^T stays digital.
        value: V on crossbars, or None where P V stays digital.
        state: what the whole model shares.
        rows: where samples stand in q[..., M, d].
        groups: how many heads K and V have, copies of them for the heads of queries not counted; None if not known.
    """

    name: str
    key: KVOperand | None
    value: KVOperand | None
    state: State
    rows: BatchAxis = FIRST
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
    ) -> Tensor:
        """`scaled_dot_product_attention` of q[..., M, d], k[..., N, d], v[..., N, e]: [..., M, e]."""
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
        refuse_hidden(self.name, query, key, value)
        if query.numel() == 0 or key.numel() == 0:  # an empty batch, or no tokens
            rows = query.shape[:-1]
            return query.new_zeros(*rows, value.shape[-1]), query.new_zeros(*rows, key.shape[-2])
        B, dtype = self._samples(query), query.dtype
        key, value = (_each_sample(t, query) for t in (key, value))
        q, k, v = (self.rows.to_heads(widened(t, self.name), B) for t in (query, key, value))
        if k.shape[1] not in (1, q.shape[1]) and not enable_gqa:
            raise BadInput(
                f"{self.name}: {q.shape[1]} heads of queries meet {k.shape[1]} of keys; pass enable_gqa=True"
            )
        given = self._aligned(attn_mask, query, B)
        mask, valid = additive_mask(given, q, k, is_causal), None if given is None else seen_keys(given)
        # What minus infinity hides gives zeros; a softmax of other numbers spreads rows that see nothing over all keys.
        blind = given is not None and given.is_floating_point() and _blind(given)
        scores = self._scores(q, k, valid, blind) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = softmax(scores if mask is None else scores + mask)
        dropped = F.dropout(weights, dropout_p) if dropout_p > 0 else weights
        output = self._mixed(dropped, v, valid, blind)
        return self.rows.from_heads(output, query.shape[:-2]).to(dtype), weights

    def _scores(self, q: Tensor, k: Tensor, valid: Tensor | None, blind: bool) -> Tensor:
        """Q K^T [B, H, M, N] of q[B, H, M, d] and k[B, G, N, d], each head of keys serving H / G heads of queries."""
        if self.key is None:
            return q @ every_head(k, q.shape[1]).transpose(-2, -1)
        scores = multiply(self.key, q, k, self.groups, valid)
        whole = valid is None or not blind or self.key.write == "left" or not self.key.simulated
        return scores if whole or valid is None else scores + unwritten(q, k, valid, "K")

    def _mixed(self, p: Tensor, v: Tensor, valid: Tensor | None, blind: bool) -> Tensor:
        """P V [B, H, M, e] of p[B, H, M, N] and v[B, G, N, e]; `blind` rows of P may see what is not written."""
        if self.value is None:
            return p @ every_head(v, p.shape[1])
        mixed = multiply(self.value, p, v.transpose(-2, -1), self.groups, valid)
        whole = valid is None or not blind or self.value.write == "left" or not self.value.simulated
        return mixed if whole or valid is None else mixed + unwritten(p, v.transpose(-2, -1), valid, "V")

    def _samples(self, query: Tensor) -> int:
        found = samples_in(query, self.rows, self.state) if query.dim() > 2 else None
        if found is None:
            names = "" if self.state.samples is None else f" for {self.state.samples} samples"
            raise BadInput(
                f"{self.name}: attention on queries of shape {tuple(query.shape)}{names}: cannot tell which rows "
                "belong to which sample; name one sample per row, or keep it digital with "
                f"rules={{{self.name.partition('#')[0]!r}: None}}"
            )
        return found

    def _aligned(self, mask: Tensor | None, query: Tensor, B: int) -> Tensor | None:
        """A mask that broadcasts against [..., M, N] of the caller's query, as one that does against [B, H, M, N]."""
        if mask is None:
            return None
        mask = mask[(None,) * (query.dim() - mask.dim())]
        if query.dim() == 4 and self.rows == FIRST and query.shape[0] == B:
            return mask
        return self.rows.to_heads(mask.expand(*query.shape[:-2], *mask.shape[-2:]), B)


def _blind(mask: Tensor) -> bool:
    """Whether a row of a mask [..., M, N] to be added hides all keys, but not by minus infinity."""
    return shows_nothing(allowed(mask) | torch.isneginf(mask).all(dim=-1, keepdim=True))


def _each_sample(t: Tensor, query: Tensor) -> Tensor:
    """Keys or values [..., G, N, d] that may stand for several rows of a query [..., H, M, d], as many as those."""
    return t.expand(*query.shape[:-3], *t.shape[-3:]) if t.dim() == query.dim() > 3 else t


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


def softmax(scores: Tensor) -> Tensor:
    """Softmax over keys; a row in which every key is masked gives zeros, as fused attention does."""
    dead = torch.isneginf(scores).all(dim=-1, keepdim=True)
    return scores.masked_fill(dead, 0.0).softmax(dim=-1).masked_fill(dead, 0.0)
