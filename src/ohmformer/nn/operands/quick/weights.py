"""The usual product with static weights, which needs few steps: see `weight_product`.

Shapes: B samples, M input vectors, O outputs, I inputs.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.array.folded import Folded, fold
from ohmformer.array.kernels.amx import reads as tiled_reads
from ohmformer.array.programmed import Programmed
from ohmformer.capture.batch_axis import FIRST
from ohmformer.nn.operands.base import StraightThrough
from ohmformer.nn.operands.quick.plan import Plan, has_gradients, plan_of, usual
from ohmformer.nn.operands.read_streams import read_streams
from ohmformer.streams import Stream, Streams

if TYPE_CHECKING:
    from ohmformer.nn.operands.weight import WeightOperand
    from ohmformer.nn.shared.state import Use


@dataclass(frozen=True, eq=False)
class Held:
    """Cells whose products need nothing but rounded inputs, as long as all of this stays the same.

    Attributes:
        plan: of the operand: its settings and those of the model.
        stream: root of the noise.
        weight: the weights that were written.
        version: of them.
        cells: what the cells hold, without noise of reads.
    """

    plan: Plan
    stream: Stream
    weight: weakref.ref[Tensor]
    version: int
    cells: Folded

    def __reduce__(self) -> tuple[object, ...]:
        """Copies know nothing."""
        return _nothing, ()


def _nothing() -> None:
    """Stands for `Held` in a copy."""


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
    plan, held = plan_of(operand), operand.held
    if held is not None and held.plan is plan and operand.state.fingerprints.unchanged and held.weight() is w:
        current = held.version == w._version and held.cells is operand.cells.cells
        grads = torch.is_grad_enabled()
        if current and not grads and x.numel() and (usual(x) if bias is None else usual(x, bias)):
            use = operand.state.use(operand.name, operand.calls_per_forward)
            if use.step is None and use.info.goes_on and use.stream == held.stream and plan.inputs is not None:
                return F.linear(plan.inputs(x)[0], held.cells.values, bias)
            return _written_product(operand, x, w, bias, use, by_sample=False)
    if (
        operand.released
        or plan.inputs is None
        or operand.rotated
        or operand.scaling is not None
        or w.dim() != 2
        or x.numel() == 0
    ):
        return None
    if not (usual(x, w) if bias is None else usual(x, w, bias)):
        return None
    by_sample = plan.noisy and operand.batch_axis is not None
    if by_sample and not _samples_first(operand, x):
        return None
    use = operand.state.use(operand.name, operand.calls_per_forward)
    return _written_product(operand, x, w, bias, use, by_sample=by_sample)


def _written_product(
    operand: WeightOperand, x: Tensor, w: Tensor, bias: Tensor | None, use: Use, *, by_sample: bool
) -> Tensor:
    """`weight_product` in a use, by cells that are written anew if something has changed."""
    cells = operand.written_cells(operand.noted(w), x.dtype, use)
    _hold(operand, w, cells, use)
    if not has_gradients(x, w, bias):
        return _multiplied(operand, x, w, cells, bias, use, by_sample=by_sample)
    with torch.no_grad():
        y = _multiplied(operand, x, w, cells, bias, use, by_sample=by_sample)
    values = (cells if isinstance(cells, Folded) else fold(cells, read_noise=False)).matrix
    return StraightThrough.apply(x, w, y, values, bias)  # type: ignore[no-any-return, no-untyped-call]


def _hold(operand: WeightOperand, w: Tensor, cells: Folded | Programmed, use: Use) -> None:
    """Note cells for the next call that goes on with a text, if their products are the simplest ones."""
    plan, held = plan_of(operand), operand.held
    if plan.noisy or use.step is not None or not use.info.goes_on or w.is_inference() or not w.is_contiguous():
        return
    if type(cells) is Folded and cells.variance is None and (held is None or held.cells is not cells):
        operand.held = Held(plan, use.stream, weakref.ref(w), w._version, cells)
        operand.state.fingerprints.hold(operand.name, w)


def _multiplied(
    operand: WeightOperand,
    x: Tensor,
    w: Tensor,
    cells: Folded | Programmed,
    bias: Tensor | None,
    use: Use,
    *,
    by_sample: bool,
) -> Tensor:
    """x @ w.T + bias by cells; noise of reads is that of each sample or token, or of all rows together."""
    plan = plan_of(operand)
    if type(cells) is Folded and cells.variance is None and plan.inputs is not None:
        if plan.in_tiles(cells):
            return tiled_reads.folded_product(plan.inputs(x, 1.0)[0], cells, plan.inputs.unit, bias=bias)
        return F.linear(plan.inputs(x)[0], cells.values, bias)
    streams: Streams | None = operand.read_stream(use) if plan.noisy else None
    if by_sample and streams is not None:
        streams = read_streams(operand.read_stream(use), x.shape, use.info, x.shape[1], by_token=operand.reads_by_token)
    rows = x if by_sample else x.reshape(1, -1, x.shape[-1])
    y = operand.multiply(rows, w, cells, streams).view(*x.shape[:-1], -1)
    return y if bias is None else y.add_(bias)


def _samples_first(operand: WeightOperand, x: Tensor) -> bool:
    """True if inputs are [B, M, I], one row for each sample, and all of them new tokens of the call."""
    known = operand.state.samples
    ordinary = operand.batch_axis == FIRST and not operand.batch_axis_of_use and not operand.state.memory.noted
    return ordinary and operand.samples_known and x.dim() == 3 and known == x.shape[0]
