"""Static weights on crossbars: written once per chip."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.crossbar import Programmed
from ohmformer.array.folded import Folded
from ohmformer.errors import BadInput
from ohmformer.nn.operand import Operand
from ohmformer.streams import current_samples


@dataclass(eq=False)
class StaticOperand(Operand):
    """Weights: written once per chip, and again when they change."""

    _held: Folded | Programmed | None = field(default=None, repr=False)
    _key: tuple[object, ...] = field(default=(), repr=False)

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """x[B, ..., I] @ w[O, I].T on crossbars."""
        if x.dim() < 2:
            raise BadInput(
                f"{self.name}: an input of shape {tuple(x.shape)} has no axis of samples; add a batch dimension"
            )
        exact = self.exact_product(x, w)
        if exact is not None:
            return exact
        rows = as_matrices(x)
        y = self.multiply(rows, w.to(rows.dtype), self.held(w.detach(), rows.dtype), self.take_turn())
        return y.reshape(*x.shape[:-1], w.shape[0]).to(x.dtype)

    def observe_input(self, x: Tensor) -> None:
        """As in the base; refuses to draw read noise where it is not clear which rows belong to which sample."""
        names = current_samples()
        if self.noisy_reads() and names is not None and len(names) != len(x):
            raise BadInput(
                f"{self.name}: {len(x)} rows of inputs for {len(names)} samples: whose read noise is whose? "
                f"Put the samples first, or keep it digital with rules={{{self.name.partition('#')[0]!r}: None}}"
            )
        super().observe_input(x)

    def held(self, w: Tensor, dtype: torch.dtype) -> Folded | Programmed:
        """What the cells hold of w[O, I]: from the last call where nothing changed."""
        state = self.state
        key = (
            state.seed,
            state.chip,
            state.level,
            w.data_ptr(),
            0 if w.is_inference() else w._version,
            dtype,
            w.device,
            fingerprint(w),
        )
        if self._held is None or key != self._key:
            w = w.to(dtype)
            w_range = encoding.full_range(w, self.array)
            codes = encoding.quantise(w, self.array, w_range)
            chip = state.stream
            with torch.no_grad():
                streams = {"stream": chip.child(self.name), "fault_stream": chip.child("faults", self.name)}
                self._held = self.hold(codes, w_range=w_range, **streams)
            self._key = key
        return self._held


def fingerprint(w: Tensor) -> tuple[float, ...]:
    """What tells changed weights from the old ones where PyTorch's version counter does not.

    Changes through `.data` (averaged weights, pruning, old optimisers) and tensors made in inference mode do not count.
    The sum, the sum of squares and some scattered values miss no change that happens in practice.
    """
    flat = w.flatten().float()
    scattered = (torch.arange(64, device=w.device) * 2654435761) % flat.numel()
    return (float(flat.sum()), float(flat.dot(flat)), *flat[scattered].tolist())


def as_matrices(x: Tensor) -> Tensor:
    """x[B, ..., I] to [B, M, I], in a dtype whose integers are exact."""
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
