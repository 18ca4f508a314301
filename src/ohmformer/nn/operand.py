"""Operands that live on crossbars: static weights, written once per chip, and K or V, written for every input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ohmformer.array import converters, encoding
from ohmformer.array.crossbar import Programmed, write
from ohmformer.array.folded import Folded, fold, folded_product, write_folded
from ohmformer.array.multiply import mvm, quantised_input
from ohmformer.array.observe import column_percentiles, widest
from ohmformer.array.spec import Calibrated, Crossbar
from ohmformer.array.writing import exact
from ohmformer.device.spec import NoNoise
from ohmformer.errors import BadInput
from ohmformer.nn.clipping import clip_codes
from ohmformer.nn.state import State
from ohmformer.streams import current_samples, sample_streams


class StraightThrough(torch.autograd.Function):
    """y, with the gradients of x @ w.T at the matrix that the cells really hold: quantisers and noise pass them."""

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
        grad_x = grad @ held if ctx.needs_input_grad[0] else None
        grad_w = None
        if ctx.needs_input_grad[1]:
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
        uses: how often one forward pass of the model uses the operand.
        turn: how often it was used; only its remainder by `uses` counts, so recomputing a layer shifts nothing.
    """

    name: str
    array: Crossbar
    state: State
    signed: bool = True
    x_range: Tensor | None = None
    adc_range: converters.Range | None = None
    uses: int = 1
    turn: int = 0

    dynamic: ClassVar[bool] = False

    @property
    def needs_cells(self) -> bool:
        """Whether converters or single devices are simulated, so that slices cannot be folded."""
        level = self.state.level
        return level == "cell" or (level == "array" and self.array.adc.bits != "ideal")

    def take_turn(self) -> tuple[int, ...]:
        """What tells this use of the operand from the others of a forward pass; nothing where there are no others."""
        turn, self.turn = self.turn % self.uses, self.turn + 1
        return (turn,) if turn else ()

    def calibrates_converters(self) -> bool:
        """Whether the range of the converters comes from a calibration."""
        return self.array.adc.bits != "ideal" and isinstance(self.array.adc.range, Calibrated)

    def multiply(self, x: Tensor, w: Tensor, held: Folded | Programmed, turn: tuple[int, ...]) -> Tensor:
        """Inputs x[B, ..., M, I] with what the cells hold of w[..., O, I]: [B, ..., M, O]."""
        with torch.no_grad():
            y = self._multiply(x.detach(), held, turn)
        if torch.is_grad_enabled() and (x.requires_grad or w.requires_grad):
            weight = held.weight if isinstance(held, Folded) else fold(held, read_noise=False).weight
            return StraightThrough.apply(x, w, y, weight)  # type: ignore[no-any-return, no-untyped-call]
        return y

    def noisy_reads(self) -> bool:
        """Whether reading the cells draws noise."""
        return self.state.level != "noise" and not isinstance(self.array.cell.read_noise, NoNoise)

    def _multiply(self, x: Tensor, held: Folded | Programmed, turn: tuple[int, ...]) -> Tensor:
        x_range = None if self.x_range is None else self.x_range.to(x)
        reads = self.state.stream.child(self.name, "read", *turn)
        stream = sample_streams(reads, len(x)) if self.noisy_reads() else None
        if isinstance(held, Folded):
            codes, unit = quantised_input(x, self.array, x_range, signed=self.signed)
            return folded_product(codes, held, self.array, stream) * unit
        if self.state.mode == "observe converters":
            self._observe_converters(x, held, x_range)
            held = fold(held, read_noise=False)
            codes, unit = quantised_input(x, self.array, x_range, signed=self.signed)
            return folded_product(codes, held, self.array, None) * unit
        level, adc_range = self.state.level, self.adc_range
        return mvm(x, held, level=level, x_range=x_range, signed=self.signed, stream=stream, adc_range=adc_range)

    def observe_input(self, x: Tensor) -> None:
        """Widen the input range to the percentile of the magnitudes in x."""
        if self.array.inputs.range == "calibrated":
            seen = percentile(x.detach().abs(), self.array.inputs.percentile)
            self.x_range = seen if self.x_range is None else torch.maximum(self.x_range, seen)

    def _observe_converters(self, x: Tensor, held: Programmed, x_range: Tensor | None) -> None:
        choice = self.array.adc.range
        if self.calibrates_converters():
            assert isinstance(choice, Calibrated)
            codes, _ = quantised_input(x, self.array, x_range, signed=self.signed)
            seen = column_percentiles(codes, held, signed=self.signed, percentile=choice.percentile)
            self.adc_range = seen if self.adc_range is None else widest(self.adc_range, seen)

    def hold(self, codes: Tensor, **how: Any) -> Folded | Programmed:
        """Write integer codes [..., O, I] (see `write`) and keep as much of them as the level needs."""
        if self.needs_cells:
            return write(codes, self.array, **how)
        return write_folded(codes, self.array, read_noise=self.state.level != "noise", **how)


def percentile(x: Tensor, percent: float) -> Tensor:
    """The percentile of the values of x, as a scalar; large tensors are thinned evenly first."""
    if percent >= 100:
        return x.amax()
    flat = x.flatten()
    return flat[:: max(1, flat.numel() // 4_000_000)].float().quantile(percent / 100).to(x.dtype)


@dataclass(eq=False)
class StaticOperand(Operand):
    """Weights: written once per chip, and again when they change."""

    _held: Folded | Programmed | None = field(default=None, repr=False)
    _key: tuple[object, ...] = field(default=(), repr=False)

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """x[B, ..., I] @ w[O, I].T on crossbars."""
        state = self.state
        state.visited.add(self.name)
        if x.dim() < 2:
            raise BadInput(
                f"{self.name}: an input of shape {tuple(x.shape)} has no axis of samples; add a batch dimension"
            )
        if state.mode in ("bypass", "observe inputs"):
            if state.mode == "observe inputs":
                self._check_rows(x)
                self.observe_input(x)
            return x @ w.T
        rows = as_matrices(x)
        y = self.multiply(rows, w.to(rows.dtype), self.held(w.detach(), rows.dtype), self.take_turn())
        return y.reshape(*x.shape[:-1], w.shape[0]).to(x.dtype)

    def _check_rows(self, x: Tensor) -> None:
        """Refuse to draw read noise where it is not clear which rows belong to which sample."""
        names = current_samples()
        if self.noisy_reads() and names is not None and len(names) != len(x):
            raise BadInput(
                f"{self.name}: {len(x)} rows of inputs for {len(names)} samples: whose read noise is whose? "
                f"Put the samples first, or keep it digital with rules={{{self.name.partition('#')[0]!r}: None}}"
            )

    def held(self, w: Tensor, dtype: torch.dtype) -> Folded | Programmed:
        """What the cells hold of w[O, I]: from the last call where nothing changed."""
        state = self.state
        key = (state.seed, state.chip, state.level, w.data_ptr(), w._version, dtype, w.device, fingerprint(w))
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
    """Some of the values of w: changes through `.data` (averaged weights, old optimisers) leave no other trace."""
    flat = w.flatten()
    return tuple(flat[:: max(1, flat.numel() // 64)].tolist())


def as_matrices(x: Tensor) -> Tensor:
    """x[B, ..., I] to [B, M, I], in a dtype whose integers are exact."""
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


@dataclass(eq=False)
class DynamicOperand(Operand):
    """K or V: written for every sample, with fresh noise.

    Attributes:
        fault_name: the arrays that are used; layers that share arrays share their faults.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
    """

    dynamic: ClassVar[bool] = True

    fault_name: str = ""
    axis: str = "K"

    def product(self, x: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Inputs with K or V tokens[B, H, N, d]: x[B, H, M, d] @ K.T, or x[B, H, M, N] @ V.

        `valid` [B, 1, N, 1] is False at padding, which does not count for the range.
        """
        state = self.state
        state.visited.add(self.name)
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        if state.mode in ("bypass", "observe inputs"):
            if state.mode == "observe inputs":
                self.observe_input(x)
            return x @ w.transpose(-2, -1)
        turn = self.take_turn()
        with torch.no_grad():
            held, gain = self._write(tokens.detach(), valid, turn)
        if gain is not None:
            x = x * gain
            w = w / torch.where(gain > 0, gain, 1.0)
        return self.multiply(x, w, held, turn)

    def _write(
        self, tokens: Tensor, valid: Tensor | None, turn: tuple[int, ...] = ()
    ) -> tuple[Folded | Programmed, Tensor | None]:
        """Program tokens[B, H, N, d]; also the gain of each row, where rows have ranges of their own."""
        array, state = self.array, self.state
        magnitude = tokens.abs() if valid is None else tokens.abs() * valid
        dims = {"tensor": tuple(range(1, tokens.dim())), "head": (-2, -1), "token": (-1,), "column": (-2,)}[array.scale]
        if array.scale == "column" and self.axis == "K":
            dims = (-1,)
        w_range = magnitude.amax(dim=dims, keepdim=True)
        codes = encoding.quantise(tokens, array, w_range)
        if state.clip is not None:
            codes = clip_codes(codes, state.clip, array)
        gain = None
        if self.axis == "V":
            codes = codes.transpose(-2, -1)
            if array.scale == "token":
                # A row's own range cannot be applied to column sums, so it is applied to the input of the row.
                common = w_range.amax(dim=-2, keepdim=True)
                gain = (w_range / torch.where(common > 0, common, 1.0)).transpose(-2, -1)
                w_range = common
            w_range = w_range.transpose(-2, -1)
        chip = state.stream.child(self.name, *turn)
        held = self.hold(
            codes,
            w_range=w_range,
            stream=chip if exact(array) else sample_streams(chip, len(tokens)),
            fault_stream=state.stream.child("faults", self.fault_name),
            max_code=None if state.clip is None else state.clip.max_code(array),
            major="outputs" if self.axis == "K" else "inputs",
        )
        return held, gain
