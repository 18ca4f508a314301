"""Products of two activations that models write out themselves, such as Q K^T and P V by `matmul`.

Shapes: B samples, R heads, M inputs, O columns of what is written, I contracted; `...` are axes that hold samples and
heads in any order (see `ohmformer.capture.batch_axis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.capture.batch_axis import BatchAxis
from ohmformer.capture.contraction.matmul import Contraction
from ohmformer.capture.masks import shows_nothing
from ohmformer.errors import BadInput
from ohmformer.nn.modules.grouped_query import multiply
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.weight import samples_in
from ohmformer.nn.shared.state import State
from ohmformer.precision import widened


@dataclass(eq=False)
class ActivationMatmulSite:
    """One product of two activations.

    Attributes:
        name: of the module, with `#n` for its n-th product after the first.
        operand: the factor that is written.
        state: what the whole model shares.
        left: the batch axis of the left factor; None if it is the same for all samples.
        right: likewise of the right factor.
        groups: heads of the right factor without copies; None if not known.
        swapped: the model computes the transpose of this product, with its factors exchanged.
    """

    name: str
    operand: KVOperand
    state: State
    left: BatchAxis | None
    right: BatchAxis | None
    groups: int | None = None
    swapped: bool = False

    def apply(self, factors: Contraction, seen: Tensor | None = None) -> Tensor:
        """Compute the product, one factor of which is written.

        Args:
            factors: the factors in the call of the model.
            seen: broadcasts against [..., M, tokens]; True where a row of the left factor sees a token of the right one
                (as the site stores them, which may be the other way around than in the model). None if all is seen, or
                nothing tells. A token that no row sees is padding, and is not written.

        Raises:
            BadInput: nothing tells which rows belong to which sample.
        """
        factors = factors.transposed() if self.swapped else factors
        refuse_hidden(self.name, factors.left, factors.right)
        if factors.left.numel() == 0 or factors.right.numel() == 0:  # an empty batch, or no tokens
            return factors.finish(factors.left @ factors.right.transpose(-2, -1))
        dtype = factors.left.dtype
        lead = torch.broadcast_shapes(factors.left.shape[:-2], factors.right.shape[:-2])
        left, right = (f.expand(*lead, *f.shape[-2:]) for f in (factors.left, factors.right))
        axis = self._axis_after_broadcasting(factors, len(lead))
        B = samples_in(left, axis, self.state)
        if B is None:
            raise BadInput(
                f"{self.name}: a product of {tuple(factors.left.shape)} with {tuple(factors.right.shape)} for "
                f"{self.state.samples} samples: cannot tell which rows belong to which sample; name one sample per row"
            )
        x, w = (axis.to_heads(widened(f, self.name), B) for f in (left, right))
        valid, spread = None, False
        if seen is not None and self.operand.write == "right":
            shown = self._shown_queries(B, x.shape[-2])
            valid = _seen_by_samples(seen, axis, tuple(lead), B, shown)
            spread = self.operand.simulated and (shown is not None or shows_nothing(seen))
        tokens = w if self.operand.axis == "K" else w.transpose(-2, -1)
        y = multiply(self.operand, x, tokens, self.groups, valid, sees_unwritten=spread)
        return factors.finish(axis.from_heads(y, tuple(lead)).to(dtype))

    def _shown_queries(self, B: int, M: int) -> Tensor | None:
        """[B, M] True for queries that are not padding; None if none is, or nothing tells.

        What only padding sees (itself, in XLNet) is padding.
        """
        token_mask = self.state.call_info.token_mask
        if not token_mask or token_mask[0].shape != (B, M) or bool(token_mask[0].all()):
            return None
        return token_mask[0]

    def _axis_after_broadcasting(self, factors: Contraction, axes: int) -> BatchAxis:
        """The batch axis among the leading axes that both factors share after broadcasting."""
        axis, factor = (self.right, factors.right) if self.right is not None else (self.left, factors.left)
        assert axis is not None
        return BatchAxis(axis.axis + axes - (factor.dim() - 2), axis.size, axis.major)


def _seen_by_samples(
    seen: Tensor, axis: BatchAxis, lead: tuple[int, ...], B: int, shown: Tensor | None = None
) -> Tensor:
    """[B or 1, N] True for tokens that any row of a sample sees, from seen[..., M, N], which broadcasts against `lead`.

    Rows that are not `shown` [B, M] do not count.
    """
    if shown is not None:
        by_sample = axis.to_heads(seen.expand(*lead, shown.shape[1], seen.shape[-1]), B)
        return (by_sample & shown.to(seen.device)[:, None, :, None]).any(dim=-2).any(dim=1)
    if axis.axis == 0 and lead[0] == B and seen.dim() == len(lead) + 2:
        return seen.any(dim=-2).flatten(1, -2).any(dim=1) if len(lead) > 1 else seen.any(dim=-2)
    return axis.to_heads(seen.expand(*lead, *seen.shape[-2:]), B).any(dim=-2).any(dim=1)
