"""Products of two activations that models write out themselves, such as Q K^T and P V by `matmul`.

Shapes: B samples, R heads, M inputs, O columns of what is written, I contracted; `...` are axes that hold samples and
heads in any order (see `ohmformer.capture.batch_axis`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.array.encoding import widened
from ohmformer.capture.batch_axis import Rows
from ohmformer.capture.matmul import Contraction
from ohmformer.errors import BadInput
from ohmformer.nn.modules.grouped_query import multiply
from ohmformer.nn.operands.kv import DynamicOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import samples_in


@dataclass(eq=False)
class PairSite:
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
    operand: DynamicOperand
    state: State
    left: Rows | None
    right: Rows | None
    groups: int | None = None
    swapped: bool = False

    def apply(self, found: Contraction) -> Tensor:
        """The product, with one factor in cells."""
        found = found.swapped() if self.swapped else found
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
        tokens = w.shape[-2 if self.operand.axis == "K" else -1]
        y = multiply(self.operand, x, w, self.groups, self._valid(B, tokens, w.device))
        return found.finish(rows.from_heads(y, tuple(lead)).to(dtype))

    def _rows(self, found: Contraction, axes: int) -> Rows:
        """Where samples stand in the axes that both factors share after broadcasting."""
        rows, factor = (self.right, found.right) if self.right is not None else (self.left, found.left)
        assert rows is not None
        return Rows(rows.axis + axes - (factor.dim() - 2), rows.size, rows.major)

    def _valid(self, B: int, N: int, device: torch.device) -> Tensor | None:
        """Which of N tokens [B, N] are none of padding, as far as the arguments of the model say."""
        asked = self.state.asked
        other = asked.memory is not None and not self.operand.causal
        for mask in (asked.memory or ()) if other else asked.padding:
            if mask.shape == (B, N):
                return mask.to(device)
        if not self.operand.causal or asked.slots is None:
            return None
        if asked.slots >= N:  # of a window that slides, the last tokens are left
            return next((m[:, -N:].to(device) for m in asked.padding if m.shape == (B, asked.slots)), None)
        # A cache of fixed size: what comes after the places in use was never written.
        used = torch.arange(N, device=device).expand(B, N) < asked.slots
        for mask in asked.padding:
            if mask.shape == (B, asked.slots):
                return used & F.pad(mask.to(device), (0, N - asked.slots))
        return used
