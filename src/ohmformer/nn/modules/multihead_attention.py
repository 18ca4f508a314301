"""`nn.MultiheadAttention` on crossbars: its products hide behind one fused call, so its forward is written out here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.torch_private import unintercepted
from ohmformer.errors import BadInput
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.describing import joined, on_arrays
from ohmformer.nn.modules.intercept import with_values
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.nn.shared.memory import Mask


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
        site = self.ohmformer_sites[0]
        with unintercepted():  # the products of the simulation itself
            query, key, value = with_values(site.state.threads.here.frames, (query, key, value))
            elsewhere = key is not query and not self._causal()
            memory_mask = not_padding(key_padding_mask) if elsewhere else None
            q, k, v = self._project(memory_mask, *(self._batch_first(t) for t in (query, key, value)))
            mask = self._mask(attn_mask, key_padding_mask, q, k, is_causal)
            heads, weights = site.attend(q, k, v, mask, self.dropout if self.training else 0.0)
            out = self.out_proj(heads.transpose(1, 2).flatten(2))
        batched = query.dim() == 3
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
        """As `nn.MultiheadAttention`, followed by the arrays that hold each matrix."""
        parts = [on_arrays(f"W{part}", each) for part, each in zip("QKV", self.ohmformer_inputs, strict=True) if each]
        for site in self.ohmformer_sites:
            parts += [on_arrays(each.axis, each) for each in (site.key, site.value) if each is not None]
        return joined(super().extra_repr(), "; ".join(parts))

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
        """True if keys are the same tokens as queries, and come one by one."""
        site = self.ohmformer_sites[0]
        return any(operand is not None and operand.causal for operand in (site.key, site.value))

    def _project(self, memory_mask: Mask | None, *tokens: Tensor) -> list[Tensor]:
        """Queries, keys and values [B, H, N, d] of tokens[B, N, .]; `memory_mask`, of keys, is as in `inputs_shown`."""
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        heads = []
        masks = (None, memory_mask, memory_mask)
        for x, w, b, operand, mask in zip(tokens, self._weights(), biases, self.ohmformer_inputs, masks, strict=True):
            y = F.linear(x, w) if operand is None else operand.product(x, w, memory_mask=mask)
            y = y if b is None else y + b
            heads.append(y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2))
        return heads

    def _mask(
        self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor, is_causal: bool
    ) -> Tensor | None:
        """One additive mask [B or 1, H or 1, M, N] from masks that are True at what they hide; None without any."""
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


def not_padding(mask: Tensor | None) -> Mask:
    """[B, N] True for keys that a padding mask does not hide; empty if there is none, or one without samples."""
    return () if mask is None or mask.dim() == 1 else (~mask if mask.dtype == torch.bool else mask == 0,)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A mask to add to scores, from one that is True at what it hides, or additive itself."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
