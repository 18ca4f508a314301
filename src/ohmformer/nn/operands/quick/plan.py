"""What an operand need not find anew in every call: it holds until a setting or the operand changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ohmformer.array import converters, writing
from ohmformer.array.folded import Folded, with_read_noise
from ohmformer.array.kernels import compiled_products, reads
from ohmformer.array.kernels.amx import factors
from ohmformer.array.kernels.amx import reads as tiled_reads
from ohmformer.array.kernels.sent_inputs import SentInputs
from ohmformer.array.kernels.writes.token_writes import TokenWrites
from ohmformer.array.multiply import has_noisy_reads, has_read_noise, needs_cells
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.programmed import Programmed
from ohmformer.capture.torch_private import plain
from ohmformer.streams import Streams
from ohmformer.streams.backends import has_tiles

if TYPE_CHECKING:
    from ohmformer.nn.operands.base import Operand
    from ohmformer.nn.operands.kv import KVOperand


@dataclass(frozen=True)
class Plan:
    """The products of one operand, as long as neither the operand nor these settings change.

    Attributes:
        settings: mode, level, rounding, kernels and clip of the model.
        noisy: True if reading the cells draws noise.
        inputs: how inputs are sent; None if the products are not of the usual kind: simulated, with rounded inputs of
            one calibrated range, without noise or errors of drivers and converters, by a matrix whose slices are
            summed, or by cells and converters that a loop simulates.
        span: the range of converters that round; None if slices are summed.
        writes: how a loop writes tokens of K or V; None if there is none for them, and for static weights.
        tiles: True if the matrix units of the CPU multiply.
        exact: True if cells hold exactly what is written.
        separable: True if what they hold can be taken apart token by token: slices are summed; faults and mismatch of
            converters belong to places, reference columns and losses in wires to all tokens.
    """

    settings: tuple[object, ...]
    noisy: bool
    inputs: SentInputs | None
    span: converters.Range | None
    writes: TokenWrites | None
    tiles: bool
    exact: bool
    separable: bool

    def in_tiles(self, cells: Folded) -> bool:
        """True if the matrix units multiply inputs by these cells."""
        return self.tiles and self.inputs is not None and tiled_reads.in_range(cells, self.inputs.unit)


def plan_of(operand: Operand) -> Plan:
    """The plan of an operand, made anew if the settings of its model have changed."""
    plan, state = operand.plan, operand.state
    settings = (state.mode, state.level, state.rounded, state.kernels, state.clip)
    if plan is None or plan.settings != settings:
        plan = operand.plan = _made(operand, settings)
    return plan


def _made(operand: Operand, settings: tuple[object, ...]) -> Plan:
    """A new plan for these settings."""
    array, state, inputs, span = operand.array, operand.state, _inputs(operand), None
    cells = needs_cells(state.level, array)
    if inputs is not None and cells:
        span = converters.adc_range(array, signed=operand.signed, calibrated=operand.adc_range)
    writes = None if inputs is None or state.kernels == "torch" else _writes(operand)
    whole = cells or array.encoding != "differential" or array.wires is not None or mismatched(array)
    separable = not whole and not writing.has_faults(array)
    noisy = has_noisy_reads(state.level, array)
    tiles = has_tiles("cpu", state.kernels) and factors.exact(array, signed=operand.signed, converted=cells)
    return Plan(settings, noisy, inputs, span, writes, tiles, writing.exact(array), separable)


def _inputs(operand: Operand) -> SentInputs | None:
    """How inputs are sent, see `Plan`."""
    array, state = operand.array, operand.state
    if not operand.simulated or state.mode in ("ideal", "written") or not state.rounded:
        return None
    if array.peripherals.output_noise or mismatched(array):
        return None
    if needs_cells(state.level, array):
        known = operand.adc_range is not None or not operand.calibrates_converters()
        by_loop = state.kernels != "torch" and state.level == "array" and known
        if not by_loop or state.mode == "observe converters":
            return None
    elif has_noisy_reads(state.level, array) and array.inputs.kind != "amplitude":
        return None  # variances are not multiplied by the squares of inputs
    return SentInputs.of(array, operand.x_range, signed=operand.signed, kernels=state.kernels)


def _writes(operand: Operand) -> TokenWrites | None:
    """How a loop writes tokens: those with ranges of samples or heads, without clip, conditioner and ages."""
    if not operand.dynamic:
        return None
    kv, array = cast("KVOperand", operand), operand.array
    if kv.conditioner is not None or kv.ages is not None or array.percentile < 100 or kv.codec.clips:
        return None
    read_noise = has_read_noise(kv.state.level)
    return TokenWrites.of(array, read_noise=read_noise) if array.scale in ("tensor", "head") else None


def usual(*factors: Tensor) -> bool:
    """True if factors have values in float32 on the CPU, and products keep this type."""
    for t in factors:  # `all` of a generator takes twice as long
        if t.dtype is not torch.float32 or not t.is_cpu or not plain(t):
            return False
    return not torch.is_autocast_enabled("cpu")


def has_gradients(*factors: Tensor | None) -> bool:
    """True if gradients of a product with these factors may be needed."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in factors)


def quick_product(operand: Operand, x: Tensor, cells: Folded | Programmed, streams: Streams | None) -> Tensor | None:
    """`Operand.multiply` in few steps, without gradients; None if the product is not a usual one."""
    plan, inputs = plan_of(operand), plan_of(operand).inputs
    if inputs is None or not usual(x):
        return None
    if isinstance(cells, Programmed):
        if plan.span is None or not reads.fusible(x, cells, operand.state.kernels):
            return None
        codes, _ = inputs(x, 1.0)
        y = compiled_products.converted_product(
            codes,
            cells,
            signed=operand.signed,
            stream=streams,
            span=plan.span,
            kernels=operand.state.kernels,
            whole=True,
        )
        return None if y is None else y.mul_(cells.unit.mT * inputs.unit)
    if plan.span is not None or (cells.variance is not None and streams is None):
        return None
    if cells.reference_variance is None and plan.in_tiles(cells):
        return tiled_reads.folded_product(inputs(x, 1.0)[0], cells, inputs.unit, stream=streams)
    sent, squares = inputs(x, squares=cells.variance is not None)
    y = cells.times(sent)
    if cells.variance is None or streams is None:
        return y
    return with_read_noise(y, squares, cells, operand.array, streams)
