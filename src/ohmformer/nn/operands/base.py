"""A matrix in the cells of crossbars, and products with it: what weights and K and V have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ohmformer.array import converters
from ohmformer.array.calibrate_adc import column_percentiles, widest
from ohmformer.array.crossbar import write
from ohmformer.array.encoding import quantize_input
from ohmformer.array.folded import Folded, fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.gaussian_writes.one_number import writable, write_normal
from ohmformer.array.multiply import (
    has_noisy_reads,
    has_read_noise,
    needs_cells,
    product,
    reads_may_follow_tokens,
)
from ohmformer.array.peripherals.spec import draws_for_reads
from ohmformer.array.programmed import Programmed
from ohmformer.array.same import Same
from ohmformer.array.spec import Calibrated, Crossbar, analog
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.nn.operands.quick.plan import Plan, quick_product
from ohmformer.nn.shared.state import State, Use
from ohmformer.streams import Stream, Streams

EXACT = ("bypass", "observe inputs", "observe tokens", "observe vectors")
"""Modes in which products are exact, as in the digital model."""


class StraightThrough(torch.autograd.Function):
    """Returns y unchanged, and passes gradients as if y were x @ w.T + bias with the matrix that the cells hold.

    So gradients go through quantizers and noise unchanged.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, y: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """x[..., M, I], y[..., M, O], values[..., O, I] of the cells; w[..., O, I] and bias[O] for gradients alone."""
        ctx.save_for_backward(x, values)
        ctx.shape = w.shape
        return y.detach()  # the same memory, which nothing else uses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for x, w and the bias."""
        (grad,) = grads
        x, values = ctx.saved_tensors
        grad, x = grad.to(values.dtype), x.to(values.dtype)  # under autocast they differ
        grad_x = grad @ values if ctx.needs_input_grad[0] else None
        grad_w = None
        if ctx.needs_input_grad[1]:
            if len(ctx.shape) == 2:  # one matrix for all: one product, not one for each sample and then their sum
                grad, x = grad.flatten(0, -2), x.flatten(0, -2)
            grad_w = (grad.transpose(-2, -1) @ x).sum_to_size(ctx.shape)
        grad_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[4] else None
        return grad_x, grad_w, None, None, grad_bias


class AddedBias(torch.autograd.Function):
    """y + bias in the memory of y, which nothing else may use: its derivatives are those of a sum."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        """y[..., out] and bias[out] of one type."""
        return y.detach().add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients for y and the bias."""
        (grad,) = grads
        of_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad if ctx.needs_input_grad[0] else None, of_bias


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """y[..., O] + bias[O], in the memory of y where types allow it: a new tensor takes more time than the addition.

    Args:
        y: results that nothing else uses.
        bias: None for none.
    """
    if bias is None or y.dtype is not bias.dtype:
        return y if bias is None else y + bias
    if y.requires_grad or (torch.is_grad_enabled() and bias.requires_grad):
        return AddedBias.apply(y, bias)  # type: ignore[no-any-return, no-untyped-call]
    return y.add_(bias)


@dataclass(eq=False)
class Operand:
    """One matrix on crossbars, with the calibrated ranges of its inputs and converters.

    Attributes:
        name: of the layer and the operand; keys its noise.
        array: the crossbars that hold it.
        state: settings and calls, which the whole model shares.
        signed: False if inputs are never negative.
        x_range: calibrated input range, a scalar; None before calibration.
        adc_range: calibrated converter range by slice, on the CPU, so that products need not wait for it; None before
            calibration, or if none is needed.
        calls_per_forward: how often one forward pass of the model uses the operand.
        plan: what was found for the calls before, see `quick.plan`; None if anything has changed since.
    """

    name: str
    array: Crossbar
    state: State
    signed: bool = True
    x_range: Tensor | None = None
    adc_range: converters.Range | None = None
    calls_per_forward: int = 1
    plan: Plan | None = field(default=None, init=False, repr=False)

    dynamic: ClassVar[bool] = False

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, and forget what was found with its former value."""
        own = vars(self)
        own[name] = value
        if name not in ("plan", "held"):
            own["plan"] = None

    @property
    def needs_cells(self) -> bool:
        """True if converters or single devices are simulated, so that slices cannot be folded."""
        return needs_cells(self.state.level, self.array)

    @property
    def simulated(self) -> bool:
        """True if products are now those of cells, not exact."""
        return self.state.mode not in EXACT

    def calibrates_converters(self) -> bool:
        """True if the range of the converters comes from a calibration."""
        return self.array.adc.bits != "ideal" and isinstance(self.array.adc.range, Calibrated)

    def multiply(
        self,
        x: Tensor,
        w: Tensor,
        cells: Folded | Programmed | None,
        streams: Streams | None,
        *,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Multiply inputs by a matrix that is held in cells: about x @ w.T. Gradients pass.

        Args:
            x: inputs [..., M, I].
            w: the matrix [..., O, I] that was written; gradients flow to it.
            cells: what the cells hold of it; None for ideal cells, which hold w itself.
            streams: keys of the read noise, see `read_streams`.
            shares: factors of the codes of inputs, which broadcast against x; no gradients pass with them.

        Returns:
            Results [..., M, O].

        Raises:
            BadInput: quantizers are bypassed, but converters are simulated.
        """
        if cells is None:
            return x @ w.transpose(-2, -1)
        with torch.no_grad():
            y = quick_product(self, x, cells, streams) if shares is None else None
            y = self._product_of_any_kind(x, cells, streams, shares) if y is None else y
        if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
            values = (cells if isinstance(cells, Folded) else fold(cells, read_noise=False)).matrix
            return StraightThrough.apply(x, w, y, values, None)  # type: ignore[no-any-return, no-untyped-call]
        return y

    def _product_of_any_kind(
        self, x: Tensor, cells: Folded | Programmed, streams: Streams | None, shares: Tensor | None
    ) -> Tensor:
        """`multiply` without gradients."""
        state, array, x_range = self.state, self.array, None if self.x_range is None else self.x_range.to(x)
        if isinstance(cells, Programmed) and state.mode == "observe converters":
            self._observe_converters(x, cells, x_range, streams)
            cells, streams = fold(cells, read_noise=False), None
        if isinstance(cells, Programmed) and not state.rounded:
            raise BadInput(
                f"{self.name}: quantizers can be bypassed only where converters are ideal; set level='noise'"
            )
        return product(
            x,
            cells,
            array,
            level=state.level,
            x_range=x_range,
            signed=self.signed,
            stream=streams,
            adc_range=self.adc_range,
            rounded=state.rounded,
            shares=shares,
            kernels=state.kernels,
        )

    @property
    def noisy_reads(self) -> bool:
        """True if reading the cells draws noise."""
        return has_noisy_reads(self.state.level, self.array)

    @property
    def reads_by_token(self) -> bool:
        """True if read noise belongs to tokens where inputs are tokens, not to samples."""
        return self.state.causal and reads_may_follow_tokens(self.state.level)

    def read_stream(self, use: Use) -> Stream:
        """Root of the read noise of one use."""
        return use.stream.child(self.name, "read", *use.call_index)

    def exact_product(self, x: Tensor, w: Tensor) -> Tensor:
        """x[..., M, I] @ w[..., O, I].T, where crossbars are bypassed or ranges observed."""
        if self.state.mode == "observe inputs":
            self.observe_input(x)
        return x @ w.transpose(-2, -1)

    def observe_input(self, x: Tensor) -> None:
        """Widen the input range to the percentile of the magnitudes in x."""
        if self.array.inputs.range == "calibrated" and x.numel():
            seen = percentile(x.detach().abs(), self.array.inputs.percentile)
            self.x_range = seen if self.x_range is None else torch.maximum(self.x_range, seen)

    def _observe_converters(
        self, x: Tensor, cells: Programmed, x_range: Tensor | None, streams: Streams | None
    ) -> None:
        """Widen the converter range to the currents that inputs cause; `streams` are keys of the noise of reads."""
        choice = self.array.adc.range
        if self.calibrates_converters():
            assert isinstance(choice, Calibrated)
            codes, _ = quantize_input(x, self.array, x_range, signed=self.signed)
            noise = streams if draws_for_reads(self.array) else None
            percent = choice.percentile
            seen = column_percentiles(codes, cells, signed=self.signed, percentile=percent, noise=noise)
            seen = seen[0].cpu(), seen[1].cpu()
            self.adc_range = seen if self.adc_range is None else widest(self.adc_range, seen)

    def write_function(self, array: Crossbar, use: Use) -> Callable[..., Any]:
        """The function of `ohmformer.array` that writes values and keeps as much of the cells as the level needs.

        It takes values [..., O, I], the crossbars and `WriteOptions`.
        """
        if self.needs_cells:
            return write
        if use.step is not None and self.state.rounded and not self.noisy_reads and writable(array):
            return write_normal
        return partial(write_folded, read_noise=has_read_noise(self.state.level))

    def written_array(self, use: Use) -> Crossbar:
        """The crossbars as they are written in a use: a training step may have other write noise than the hardware."""
        array, step = self.array if self.state.rounded else analog(self.array), use.step
        cell = None if step is None else step.cells.get(self.name)
        return array if cell is None else _with_cell(Same(array), Same(cell))


@lru_cache(maxsize=64)
def _with_cell(array: Same[Crossbar], cell: Same[Cell]) -> Crossbar:
    """An array with other cells: the same object in each step, so that what is known of it need not be found again."""
    return array.value.model_copy(update={"cell": cell.value})


def percentile(x: Tensor, percent: float) -> Tensor:
    """The percentile of the values of x, as a scalar; large tensors are thinned evenly first."""
    if percent >= 100:
        return x.amax()
    flat = x.flatten()
    return flat[:: max(1, flat.numel() // 4_000_000)].float().quantile(percent / 100).to(x.dtype)
