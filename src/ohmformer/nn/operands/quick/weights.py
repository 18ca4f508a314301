"""The usual product with static weights, which needs few steps: see `weight_product`.

Shapes: B samples, M input vectors, O outputs, I inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.array.folded import Folded, with_read_noise
from ohmformer.capture.batch_axis import FIRST
from ohmformer.nn.operands.base import StraightThrough
from ohmformer.nn.operands.quick.plan import has_gradients, plan_of, usual
from ohmformer.nn.operands.read_streams import read_streams

if TYPE_CHECKING:
    from ohmformer.nn.operands.weight import WeightOperand
    from ohmformer.nn.shared.state import Use


def weight_product(operand: WeightOperand, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor | None:
    """x @ w.T + bias by the cells that hold w, in few steps; None if the call is not a usual one.

    Args:
        operand: the weights.
        x: inputs [..., M, I].
        w: the weights [O, I].
        bias: added digitally.

    Raises:
        BadInput: as `WeightOperand.product`.
    """
    plan = plan_of(operand)
    if plan.inputs is None or operand.rotated or operand.scaling is not None or w.dim() != 2 or x.numel() == 0:
        return None
    if not (usual(x, w) if bias is None else usual(x, w, bias)):
        return None
    by_sample = plan.noisy and operand.batch_axis is not None
    if by_sample and not _samples_first(operand, x):
        return None
    use = operand.state.use(operand.name, operand.calls_per_forward)
    cells = operand.written_cells(operand.noted(w), x.dtype, use)
    assert isinstance(cells, Folded)
    with torch.no_grad():
        sent, squares = plan.inputs(x, squares=plan.noisy)
        if type(cells) is Folded:
            y = F.linear(sent, cells.values, bias)
        else:
            y = cells.times(sent) if bias is None else cells.times(sent).add_(bias)
        if cells.variance is not None:
            y = _with_read_noise(operand, y, squares, cells, use, by_sample=by_sample)
    if has_gradients(x, w, bias):
        return StraightThrough.apply(x, w, y, cells.matrix, bias)  # type: ignore[no-any-return, no-untyped-call]
    return y


def _with_read_noise(
    operand: WeightOperand, y: Tensor, squares: Tensor, cells: Folded, use: Use, *, by_sample: bool
) -> Tensor:
    """Add read noise to results [..., M, O]: that of each sample or token, or of all rows together."""
    stream = operand.read_stream(use)
    if by_sample:
        streams = read_streams(stream, y.shape, use.info, y.shape[1], by_token=operand.reads_by_token)
        return with_read_noise(y, squares, cells, operand.array, streams)
    rows, power = (t.view(1, -1, t.shape[-1]) for t in (y, squares))
    return with_read_noise(rows, power, cells, operand.array, stream).view(y.shape)


def _samples_first(operand: WeightOperand, x: Tensor) -> bool:
    """True if inputs are [B, M, I], one row for each sample, and all of them new tokens of the call."""
    known = operand.state.samples
    ordinary = operand.batch_axis == FIRST and not operand.batch_axis_of_use and not operand.state.memory.noted
    return ordinary and operand.samples_known and x.dim() == 3 and known == x.shape[0]
