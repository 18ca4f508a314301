"""What lives on crossbars, and the products with it: what static weights and run-time K and V have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ohmformer.array import converters
from ohmformer.array.calibrate_adc import column_percentiles, widest
from ohmformer.array.crossbar import Programmed, write
from ohmformer.array.folded import Folded, fold, write_folded
from ohmformer.array.multiply import needs_cells, product, quantized_input
from ohmformer.array.spec import Calibrated, Crossbar, analog
from ohmformer.array.write_one_gaussian import writable, write_normal
from ohmformer.device import noise
from ohmformer.errors import BadInput
from ohmformer.nn.operands.state import CallInfo, State, Use
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.streams import PaddedStreams, Streams, TokenStreams, sample_streams

EXACT = ("bypass", "observe inputs", "observe tokens")
"""Modes in which products are those of the model itself."""


class StraightThrough(torch.autograd.Function):
    """y, with the gradients of x @ w.T at the matrix that the cells really hold: quantizers and noise pass them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, y: Tensor, held: Tensor) -> Tensor:
        """x[..., M, I], w[..., O, I] (for its gradient only), y[..., M, O], held[..., O, I]."""
        ctx.save_for_backward(x, held)
        ctx.shape = w.shape
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for x and w."""
        (grad,) = grads
        x, held = ctx.saved_tensors
        grad, x = grad.to(held.dtype), x.to(held.dtype)  # under autocast they differ
        grad_x = grad @ held if ctx.needs_input_grad[0] else None
        grad_w = None
        if ctx.needs_input_grad[1]:
            if len(ctx.shape) == 2:  # one matrix for all: one product, not one for each sample and then their sum
                grad, x = grad.flatten(0, -2), x.flatten(0, -2)
            grad_w = (grad.transpose(-2, -1) @ x).sum_to_size(ctx.shape)
        return grad_x, grad_w, None, None


@dataclass(eq=False)
class Operand:
    """One matrix on crossbars, and the ranges of the inputs that are multiplied with it.

    Attributes:
        name: of the layer and the operand; keys its noise.
        array: the crossbars that hold it.
        state: what the whole model shares.
        signed: False where inputs are never negative.
        x_range: calibrated input range, a scalar; None before calibration.
        adc_range: calibrated converter range by slice; None before calibration, or where none is needed.
        calls_per_forward: how often one forward pass of the model uses the operand.
    """

    name: str
    array: Crossbar
    state: State
    signed: bool = True
    x_range: Tensor | None = None
    adc_range: converters.Range | None = None
    calls_per_forward: int = 1

    dynamic: ClassVar[bool] = False

    @property
    def needs_cells(self) -> bool:
        """Whether converters or single devices are simulated, so that slices cannot be folded."""
        return needs_cells(self.state.level, self.array)

    @property
    def simulated(self) -> bool:
        """Whether products are those of cells now, not those of the model itself."""
        return self.state.mode not in EXACT

    def calibrates_converters(self) -> bool:
        """Whether the range of the converters comes from a calibration."""
        return self.array.adc.bits != "ideal" and isinstance(self.array.adc.range, Calibrated)

    def multiply(
        self,
        x: Tensor,
        w: Tensor,
        held: Folded | Programmed | None,
        use: Use,
        *,
        samples: bool = True,
        queries: int | None = None,
        columns: tuple[int, ...] | None = None,
        own: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Inputs x[B, ..., M, I] with what the cells hold of w[..., O, I]: [B, ..., M, O].

        Without `samples` the first axis of x is none of samples, and its rows are read as they come. M may be several
        times the number of `queries`, one head of queries after the other. `columns` says how many of the outputs
        each sample has, where that differs. `own` is given for inputs that are not the new tokens of the call (see
        `State.memory`): which of them [B, M] are no padding. Cells that are ideal hold nothing but w.
        """
        if held is None:
            return x @ w.transpose(-2, -1)
        with torch.no_grad():
            stream = self._read_stream(x, use, samples, queries, columns, own) if self.noisy_reads() else None
            y = self._multiply(x.detach(), held, stream)
        if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
            weight = held.weight if isinstance(held, Folded) else fold(held, read_noise=False).weight
            return StraightThrough.apply(x, w, y, weight)  # type: ignore[no-any-return, no-untyped-call]
        return y

    def noisy_reads(self) -> bool:
        """Whether reading the cells draws noise."""
        return self.state.level != "noise" and not noise.exact_reads(self.array.cell)

    def _read_stream(
        self,
        x: Tensor,
        use: Use,
        samples: bool,
        queries: int | None,
        columns: tuple[int, ...] | None,
        memory: tuple[Tensor, ...] | None,
    ) -> Streams:
        """What the noise of reading inputs x[B, ..., M, I] belongs to: a sample, or each token in causal models.

        Where a call does not number its tokens, inputs that are known to be tokens are numbered from 0.
        """
        state, info, B = self.state, use.info, len(x)
        reads = use.stream.child(self.name, "read", *use.call_index)
        if not samples:
            return reads
        found = sample_streams(reads, B, info.names)
        numbers = info.numbers if queries is None else self.numbers_of_inputs(B, queries, info)
        queries = x.shape[-2] if queries is None else queries
        heads = x.shape[-2] // queries
        tokens = len(numbers) == B and len(numbers[0]) >= queries and memory is None
        if not (state.causal and tokens) or state.level == "cell":
            own = _own_rows(B, queries, heads, info, memory)
            if own is None and columns is None:
                return found
            return PaddedStreams(found.streams, places=x.shape[-2], rows=own, columns=columns)
        # Heads of queries that share heads of keys are read one after the other: each has numbers of its own.
        places = tuple(
            tuple(n * heads + head if n >= 0 else -1 for head in range(heads) for n in row[-queries:])
            for row in numbers
        )
        return TokenStreams(found.streams, numbers=places, growing=True)

    def numbers_of_inputs(self, B: int, queries: int, info: CallInfo) -> Numbers:
        """The numbers of inputs that are tokens, `queries` of each of B samples; empty if they come all at once."""
        return info.numbers or (() if info.at_once else numbers_by_place(B, queries, info))

    def _multiply(self, x: Tensor, held: Folded | Programmed, stream: Streams | None) -> Tensor:
        x_range = None if self.x_range is None else self.x_range.to(x)
        rounded = self.state.rounded
        if isinstance(held, Programmed) and self.state.mode == "observe converters":
            self._observe_converters(x, held, x_range)
            held, stream = fold(held, read_noise=False), None
        if isinstance(held, Programmed):
            x = x.to(held.cells)
            if not rounded:
                raise BadInput(
                    f"{self.name}: quantizers can be bypassed only where converters are ideal; set level='noise'"
                )
        codes, unit = quantized_input(x, self.array, x_range, signed=self.signed, rounded=rounded)
        array = self.array if rounded else analog(self.array)
        level, adc_range = self.state.level, self.adc_range
        y = product(codes, held, array, level=level, signed=self.signed, stream=stream, adc_range=adc_range)
        return y * unit

    def exact_product(self, x: Tensor, w: Tensor) -> Tensor:
        """Inputs x[..., I] @ w[..., O, I].T where crossbars are bypassed or observed."""
        if self.state.mode == "observe inputs":
            self.observe_input(x)
        return x @ w.transpose(-2, -1)

    def observe_input(self, x: Tensor) -> None:
        """Widen the input range to the percentile of the magnitudes in x."""
        if self.array.inputs.range == "calibrated" and x.numel():
            seen = percentile(x.detach().abs(), self.array.inputs.percentile)
            self.x_range = seen if self.x_range is None else torch.maximum(self.x_range, seen)

    def _observe_converters(self, x: Tensor, held: Programmed, x_range: Tensor | None) -> None:
        choice = self.array.adc.range
        if self.calibrates_converters():
            assert isinstance(choice, Calibrated)
            codes, _ = quantized_input(x, self.array, x_range, signed=self.signed)
            seen = column_percentiles(codes, held, signed=self.signed, percentile=choice.percentile)
            self.adc_range = seen if self.adc_range is None else widest(self.adc_range, seen)

    def hold(self, codes: Tensor, array: Crossbar, use: Use, **how: Any) -> Folded | Programmed:
        """Write integer codes [..., O, I] (see `write`) into an array, and keep as much of them as the level needs."""
        state = self.state
        if array.max_code != self.array.max_code:  # a slice_base has codes of its own, which one cell need not have
            codes = codes * (array.max_code / self.array.max_code)
        if self.needs_cells:
            return write(codes, array, **how)
        if use.step is not None and state.rounded and not self.noisy_reads() and writable(array):
            return write_normal(codes, array, **how)
        return write_folded(codes, array, read_noise=state.level != "noise", **how)

    def written_array(self, use: Use) -> Crossbar:
        """The array as it is written now: a step of training may have other write noise than the hardware."""
        array, step = self.array if self.state.rounded else analog(self.array), use.step
        cell = None if step is None else step.cells.get(self.name)
        return array if cell is None else array.model_copy(update={"cell": cell})


def numbers_by_place(B: int, queries: int, info: CallInfo) -> Numbers:
    """The numbers of the tokens at `queries` places of each of B samples; -1 at padding."""
    own = _own_rows(B, queries, 1, info, None)
    if own is None:
        return (tuple(range(queries)),) * B
    found = [dict(zip(row, range(len(row)), strict=True)) for row in own]
    return tuple(tuple(number.get(place, -1) for place in range(queries)) for number in found)


def _own_rows(
    B: int, queries: int, heads: int, info: CallInfo, memory: tuple[Tensor, ...] | None
) -> tuple[tuple[int, ...], ...] | None:
    """For each sample, which of its rows [heads * queries] are none of padding, as far as the model is told."""
    masks = memory if memory is not None else info.padding if info.memory is None else ()
    if not masks or masks[0].shape != (B, queries) or bool(masks[0].all()):
        return None
    own = [row.nonzero().flatten().tolist() for row in masks[0]]
    return tuple(tuple(head * queries + n for head in range(heads) for n in row) for row in own)


def percentile(x: Tensor, percent: float) -> Tensor:
    """The percentile of the values of x, as a scalar; large tensors are thinned evenly first."""
    if percent >= 100:
        return x.amax()
    flat = x.flatten()
    return flat[:: max(1, flat.numel() // 4_000_000)].float().quantile(percent / 100).to(x.dtype)
