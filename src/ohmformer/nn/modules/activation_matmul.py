"""Products of two activations that models write out themselves, such as Q K^T and P V by `matmul`.

Shapes: B samples, R heads, M inputs, O columns of what is written, I contracted; `...` are axes that hold samples and
heads in any order (see `ohmformer.capture.batch_axis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.array.encoding import widened
from ohmformer.capture.batch_axis import BatchAxis
from ohmformer.capture.contraction.matmul import Contraction
from ohmformer.capture.masks import shows_nothing
from ohmformer.errors import BadInput
from ohmformer.nn.modules.grouped_query import multiply, unwritten
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import samples_in


@dataclass(eq=False)
class ActivationMatmulSite:
    """One product of two activations.

    Attributes:
        name: of the module, with `#n` for its n-th product after the first.
        operand: what is written.
        state: what the whole model shares.
        left: where samples stand in the left factor; None where it is the same for all.
        right: in the right factor.
        groups: how many heads the right factor has, copies not counted; None where that is not known.
        swapped: the model writes the transpose of this product, with its factors exchanged.
    """

    name: str
    operand: KVOperand
    state: State
    left: BatchAxis | None
    right: BatchAxis | None
    groups: int | None = None
    swapped: bool = False

    def apply(self, found: Contraction, seen: Tensor | None = None) -> Tensor:
        """The product, with one factor in cells.

        `seen` says what of [..., M, tokens] the mask of the model lets be seen, tokens of the right factor (as the
        site stores them, whichever way around the model writes them); None where that is all, or not known. Tokens
        that no row sees are padding, and are not written.
        """
        found = found.swapped() if self.swapped else found
        refuse_hidden(self.name, found.left, found.right)
        if found.left.numel() == 0 or found.right.numel() == 0:  # an empty batch, or no tokens
            return found.finish(found.left @ found.right.transpose(-2, -1))
        dtype = found.left.dtype
        lead = torch.broadcast_shapes(found.left.shape[:-2], found.right.shape[:-2])
        left, right = (f.expand(*lead, *f.shape[-2:]) for f in (found.left, found.right))
        rows = self._rows(found, len(lead))
        B = samples_in(left, rows, self.state)
        if B is None:
            raise BadInput(
                f"{self.name}: a product of {tuple(found.left.shape)} with {tuple(found.right.shape)} for "
                f"{self.state.samples} samples: cannot tell which rows belong to which sample; name one sample per row"
            )
        x, w = (rows.to_heads(widened(f, self.name), B) for f in (left, right))
        tokens = self.operand.write == "right"
        valid, blind = None, False
        if seen is not None and tokens:
            own = self._own_queries(B, x.shape[-2])
            valid = _of_samples(seen, rows, tuple(lead), B, own)
            blind = self.operand.simulated and (own is not None or shows_nothing(seen))
        y = multiply(self.operand, x, w, self.groups, valid)
        if blind and valid is not None:
            y = y + unwritten(x, w, valid, self.operand.axis)
        return found.finish(rows.from_heads(y, tuple(lead)).to(dtype))

    def _own_queries(self, B: int, M: int) -> Tensor | None:
        """Which of M queries [B, M] are none of padding, as far as the call says; None where all are, or all may be.

        What only padding sees (itself, in XLNet) is padding.
        """
        padding = self.state.call_info.padding
        if not padding or padding[0].shape != (B, M) or bool(padding[0].all()):
            return None
        return padding[0]

    def _rows(self, found: Contraction, axes: int) -> BatchAxis:
        """Where samples stand in the axes that both factors share after broadcasting."""
        rows, factor = (self.right, found.right) if self.right is not None else (self.left, found.left)
        assert rows is not None
        return BatchAxis(rows.axis + axes - (factor.dim() - 2), rows.size, rows.major)


def _of_samples(seen: Tensor, rows: BatchAxis, lead: tuple[int, ...], B: int, own: Tensor | None = None) -> Tensor:
    """Which tokens [B or 1, N] any row of seen[..., M, N] sees; it may have axes of one place, and fewer axes.

    Of the rows of each sample only the `own` ones [B, M] count, or all.
    """
    if own is not None:
        each = rows.to_heads(seen.expand(*lead, own.shape[1], seen.shape[-1]), B)
        return (each & own.to(seen.device)[:, None, :, None]).any(dim=-2).any(dim=1)
    if rows.axis == 0 and lead[0] == B and seen.dim() == len(lead) + 2:
        return seen.any(dim=-2).flatten(1, -2).any(dim=1) if len(lead) > 1 else seen.any(dim=-2)
    return rows.to_heads(seen.expand(*lead, *seen.shape[-2:]), B).any(dim=-2).any(dim=1)
