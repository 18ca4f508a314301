"""`nn.MultiheadAttention` on crossbars: its products hide behind one fused call, so its forward is written out here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.nn.describing import joined, on_arrays
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand


class CrossbarMultiheadAttention(nn.MultiheadAttention):
    """Attention of query[B, M, E] on key[B, N, K] and value[B, N, V] (or [M, B, E] ... without `batch_first`).

    `out_proj` is a layer of its own; `ohmformer_inputs` hold the three input projections, or are None where those stay
    digital.
    """

    ohmformer_own = True
    ohmformer_inputs: tuple[WeightOperand | None, WeightOperand | None, WeightOperand | None]
    ohmformer_sites: list[AttentionSite]

    @eager
    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`; masked positions are True in boolean masks."""
        refuse_transforms(query, key, value)
        with self.ohmformer_sites[0].state.paused():
            return self._attend(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        need_weights: bool,
        attn_mask: Tensor | None,
        average_attn_weights: bool,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        elsewhere = key is not query and not self._causal()
        memory = _present(key_padding_mask) if elsewhere else None
        q, k, v = self._project(memory, *(self._batch_first(t) for t in (query, key, value)))
        mask = self._mask(attn_mask, key_padding_mask, q, k, is_causal)
        p = self.dropout if self.training else 0.0
        site = self.ohmformer_sites[0]
        heads, weights = site.attend(q, k, v, mask, p)
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            out = out.squeeze(0)
        elif not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return out, weights if batched else weights.squeeze(0)

    __prepare_scriptable__ = refuse_scripting

    def extra_repr(self) -> str:
        """As `nn.MultiheadAttention`, and which arrays hold what."""
        held = [on_arrays(f"W{part}", one) for part, one in zip("QKV", self.ohmformer_inputs, strict=True) if one]
        for site in self.ohmformer_sites:
            held += [on_arrays(one.axis, one) for one in (site.key, site.value) if one is not None]
        return joined(super().extra_repr(), "; ".join(held))

    def _batch_first(self, t: Tensor) -> Tensor:
        if t.dim() == 2:
            return t.unsqueeze(0)
        return t if self.batch_first else t.transpose(0, 1)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is not None:
            q, k, v = self.in_proj_weight.chunk(3)
            return q, k, v
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _causal(self) -> bool:
        """Whether keys are the same tokens as queries, and come one by one."""
        site = self.ohmformer_sites[0]
        return any(operand is not None and operand.causal for operand in (site.key, site.value))

    def _project(self, memory: tuple[Tensor, ...] | None, *tokens: Tensor) -> list[Tensor]:
        """Queries, keys and values [B, H, N, d] of tokens[B, N, .]; `memory` of keys and values as in `State`."""
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        heads = []
        owns = (None, memory, memory)
        for x, w, b, operand, own in zip(tokens, self._weights(), biases, self.ohmformer_inputs, owns, strict=True):
            y = F.linear(x, w) if operand is None else operand.product(x, w, memory=own)
            y = y if b is None else y + b
            heads.append(y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2))
        return heads

    def _mask(
        self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor, is_causal: bool
    ) -> Tensor | None:
        """One additive mask [B or 1, H or 1, M or 1, N] of all that is given; True means masked here."""
        parts = []
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
            parts.append(_additive(attn_mask, q))
        elif is_causal:
            raise BadInput("nn.MultiheadAttention: is_causal=True is only a hint; pass the attn_mask too")
        if padding is not None:
            padding = padding.unsqueeze(0) if padding.dim() == 1 else padding
            parts.append(_additive(padding[:, None, None, :], q))
        if not parts:
            return None
        mask = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])


def _present(padding: Tensor | None) -> tuple[Tensor, ...]:
    """Which keys [B, N] are no padding, of a mask that hides padding; empty if all are."""
    return () if padding is None or padding.dim() == 1 else (~padding if padding.dtype == torch.bool else padding == 0,)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
