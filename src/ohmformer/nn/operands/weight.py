"""Static weights on crossbars: written once per chip."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.calibrate_adc import widest
from ohmformer.array.codec import Codec
from ohmformer.array.crossbar import Programmed
from ohmformer.array.folded import Folded
from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.errors import BadInput
from ohmformer.mitigation.hadamard import rotate
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.state import State, Use
from ohmformer.streams import current_samples


@dataclass(eq=False)
class WeightCells:
    """What holds one matrix of weights: written once per chip, and again when they change. Tied layers share it."""

    name: str
    held: Folded | Programmed | None = field(default=None, repr=False)
    key: tuple[object, ...] = field(default=(), repr=False)
    sums: tuple[float, float] | None = None


@dataclass(eq=False)
class WeightOperand(Operand):
    """Weights: written once per chip, and again when they change.

    Attributes:
        rows: where samples stand in the inputs [..., M, I]; None where inputs are the same for all samples.
        samples_known: False where inputs are rows of which nobody knows to which sample they belong.
        cells: what holds the weights.
        bank: the parameter that holds this matrix among others, of which an input uses only some; or empty.
        rows_of: `rows` for each use of a forward pass, where they differ: DeBERTa projects tokens and positions alike.
        rotated: inputs and weights are rotated alike, which changes no product: the cells hold w R, and take x R.
    """

    rows: BatchAxis | None = FIRST
    samples_known: bool = True
    cells: WeightCells = field(default_factory=lambda: WeightCells(""))
    bank: str = ""
    rows_of: tuple[BatchAxis | None, ...] = ()
    rotated: bool = False

    def product(
        self, x: Tensor, w: Tensor, origin: Tensor | None = None, memory: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """x[..., M, I] @ w[O, I].T on crossbars, or x[..., G, M, I] with w[G, O, I].

        `origin` is the parameter that w is a copy of, if it is one. `memory` is given for inputs that are not the new
        tokens of the call, where `State.memory` does not know them.
        """
        refuse_hidden(self.name, x, w)
        if x.numel() == 0:
            return x @ w.transpose(-2, -1)
        own = memory if memory is not None else self.state.memory.padding_of(x)
        use, dtype = self.state.use(self.name, self.calls_per_forward), x.dtype
        places = self.rows_of[use.call_index[0] if use.call_index else 0] if self.rows_of else self.rows
        held_of = w.detach()
        if self.rotated:
            x = rotate(encoding.widened(x, self.name))
            w = self._rotated_if_used(w, x.dtype)
        if self.state.mode == "observe inputs" and self.noisy_reads() and places is not None:
            self._samples(x, places)  # refuses inputs for which no read noise could be drawn
        if not self.simulated:
            return self.exact_product(x, w).to(dtype)
        if dtype is not held_of.dtype and not torch.is_autocast_enabled(x.device.type):
            raise BadInput(
                f"{self.name}: inputs are {dtype} and weights {held_of.dtype}; give both the same type, as the digital "
                "layer needs too"
            )
        rows = encoding.widened(x, self.name)
        held = None if self.state.mode in ("ideal", "written") else self.held(held_of, rows.dtype, use, origin)
        if not self.noisy_reads() or places is None:
            flat = rows.reshape(1, -1, x.shape[-1]) if w.dim() == 2 else rows
            y = self.multiply(flat, w.to(rows.dtype), held, use, samples=False)
            return y.reshape(*x.shape[:-1], w.shape[-2]).to(dtype)
        first = places.move_samples_first(rows, self._samples(rows, places))
        if w.dim() == 2:
            flat = first.flatten(1, -2) if first.dim() > 2 else first.unsqueeze(1)
            queries = flat.shape[-2] if first.dim() == 3 else None
            y = self.multiply(flat, w.to(rows.dtype), held, use, queries=queries, own=own)
            y = y.reshape(*first.shape[:-1], w.shape[-2])
        else:
            y = self.multiply(first, w.to(rows.dtype), held, use)
        return places.move_samples_back(y, rows.shape[places.axis]).to(dtype)

    def _rotated_if_used(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        """w R where the product is exact or gradients flow to w; w itself where only its shape matters any more."""
        used = self.state.mode != "run" or (torch.is_grad_enabled() and w.requires_grad)
        return rotate(w.to(dtype)) if used else w

    def _samples(self, x: Tensor, places: BatchAxis) -> int:
        """How many samples inputs hold.

        Raises:
            BadInput: that cannot be told, so it is not clear whose read noise is whose.
        """
        found = samples_in(x, places, self.state)
        if found is None or not self.samples_known:
            count = "" if self.state.samples is None else f" for {self.state.samples} samples"
            raise BadInput(
                f"{self.name}: inputs of shape {tuple(x.shape)}{count}: whose read noise is whose? Use level='noise', "
                f"or keep it digital with rules={{{self.pattern!r}: None}}"
            )
        return found

    @property
    def pattern(self) -> str:
        """A pattern for rules that matches the module, or the bank of matrices, and its like in other layers."""
        return re.sub(r"\d+", "*", self.bank or self.name.partition("#")[0])

    def held(self, w: Tensor, dtype: torch.dtype, use: Use, origin: Tensor | None = None) -> Folded | Programmed:
        """What the cells hold of w[..., O, I]: from the last call where nothing changed.

        Whether something did is seen at `origin` where w is a copy.
        """
        state, cells = self.state, self.cells
        given = w if origin is None else origin
        key = (
            (state.seed, state.chip, use.step, state.level, state.rounded),
            given.data_ptr(),
            0 if given.is_inference() else given._version,
            (dtype, w.device, tuple(w.shape), given.stride()),
            scattered(w),
        )
        # Sums read all weights, which is as much work as the product with a single token: once a text is enough.
        # A step of training writes anew in any case, and weights stay as they are from its call to its gradients.
        sums = None if use.step is not None else cells.sums if use.info.goes_on and key == cells.key else totals(w)
        if cells.held is None or (key, sums) != (cells.key, cells.sums):
            w = rotate(w.to(dtype)) if self.rotated else w.to(dtype)
            w_range = encoding.full_range(w, self.array)
            codes = Codec(self.array, rounded=state.rounded).codes(w, w_range)
            with torch.no_grad():
                streams = {
                    "stream": use.stream.child(cells.name),
                    "fault_stream": use.stream.child("faults", cells.name),
                }
                held = self.hold(codes, self.written_array(use), use, w_range=w_range, **streams)
            cells.held, cells.key, cells.sums = held, key, sums
            return held  # what the cells hold may be another thread's by now
        return cells.held


def samples_in(factor: Tensor, rows: BatchAxis, state: State) -> int | None:
    """How many samples a factor holds; None where that cannot be told."""
    places = factor.shape[rows.axis]
    known = state.samples
    if known is not None and places % known == 0:
        return known
    return None if current_samples() is not None else rows.samples(factor) or None


def scattered(w: Tensor) -> tuple[float, ...]:
    """Some values of w from all over it.

    With `totals` they tell changed weights from the old ones where PyTorch's version counter does not: changes through
    `.data` (averaged weights, pruning, old optimizers) and of tensors made in inference mode do not count there.
    """
    flat = w.reshape(-1)
    places = (torch.arange(64, device=w.device) * 2654435761) % flat.numel()
    return tuple(flat[places].float().tolist())


def totals(w: Tensor) -> tuple[float, float]:
    """The sum of w and of its squares: with `scattered` they miss no change that happens in practice."""
    flat = w.reshape(-1).float()
    return float(flat.sum()), float(flat.dot(flat))


def share_ranges(operands: Iterable[Operand]) -> None:
    """Give matrices of a bank that no calibration input used the input range of the others."""
    for members in _banks(operands):
        seen = [member.x_range for member in members if member.x_range is not None]
        for member in members:
            if member.x_range is None and seen:
                member.x_range = torch.stack(seen).amax(dim=0)


def share_converter_ranges(operands: Iterable[Operand]) -> None:
    """Give matrices of a bank that no calibration input used the converter range that holds those of the others."""
    for members in _banks(operands):
        seen = [member.adc_range for member in members if member.adc_range is not None]
        if not seen:
            continue
        common = reduce(lambda a, b: widest(a, (torch.as_tensor(b[0]), torch.as_tensor(b[1]))), seen)
        for member in members:
            if member.adc_range is None and member.calibrates_converters():
                member.adc_range = common


def _banks(operands: Iterable[Operand]) -> list[list[WeightOperand]]:
    """The matrices of each bank."""
    banks: dict[str, list[WeightOperand]] = {}
    for operand in operands:
        if isinstance(operand, WeightOperand) and operand.bank:
            banks.setdefault(operand.bank, []).append(operand)
    return list(banks.values())
