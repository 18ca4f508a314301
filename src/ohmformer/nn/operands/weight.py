"""Weights on crossbars: written once per chip.

Shapes: B samples, M input vectors, O outputs, I inputs, G matrices of a bank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.calibrate_adc import widest
from ohmformer.array.codes.codec import Codec
from ohmformer.array.folded import Folded
from ohmformer.array.half_cells import halved
from ohmformer.array.programmed import Programmed
from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.array.spec import Crossbar
from ohmformer.capture.batch_axis import FIRST, BatchAxis
from ohmformer.errors import BadInput
from ohmformer.mitigation.hadamard import rotate
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.operands.base import Operand, add_bias
from ohmformer.nn.operands.kv_transform import TRADE
from ohmformer.nn.operands.observation import WeightInputs
from ohmformer.nn.operands.plain_calls import refuse_hidden
from ohmformer.nn.operands.quick.weights import Held, weight_product
from ohmformer.nn.operands.read_streams import read_streams
from ohmformer.nn.shared.given_up import check_meta, needs_weights
from ohmformer.nn.shared.grown_weights import has_grown, warn_of_growth
from ohmformer.nn.shared.memory import Mask
from ohmformer.nn.shared.state import CallInfo, State, Use
from ohmformer.nn.shared.weight_fingerprints import square_sum
from ohmformer.precision import widened
from ohmformer.streams import Streams, current_samples


@dataclass(eq=False)
class WeightCells:
    """Cells that hold one matrix of weights. Tied layers share them.

    Attributes:
        name: keys their noise.
        cells: what they hold; None before the first call.
        key: everything beside the values of the weights that decided how they were written.
        checksum: of the weights that were written, see `weight_fingerprints.checksum`.
    """

    name: str
    cells: Folded | Programmed | None = field(default=None, repr=False)
    key: tuple[object, ...] = field(default=(), repr=False)
    checksum: int | None = None


@dataclass(eq=False)
class WeightOperand(Operand):
    """Weights: written once per chip, and again when they change.

    Attributes:
        batch_axis: the batch axis of the inputs [..., M, I]; None if inputs are the same for all samples.
        samples_known: False if nothing tells to which sample a row of the inputs belongs.
        cells: the cells that hold the weights.
        bank: the parameter that holds this matrix among others, of which an input uses only some; or empty.
        batch_axis_of_use: `batch_axis` of each use in a forward pass, if they differ: DeBERTa projects tokens and
            positions alike.
        rotated: the cells hold w R and take x R, which changes no product.
        matrix: identity of the matrix, which all operands that share it have in common.
        mitigation: what else is done to the weights.
        scaling: factors s [I] of the weights, by which inputs are divided; None for none.
        feedback: corrections of errors in weights that are written later; None for none.
        observed: what calibration has observed; None if it is not observing.
        range_guessed: True if no calibration input has used it, so that it has the input range of others of its bank.
        calibrated_square: sum of the squares of the weights when ranges were last calibrated; None before.
        released: True if the weights were given up, so that cells hold all that is left of them.
        held: cells for products in few steps, see `quick.weights`; None if these are not known.
    """

    batch_axis: BatchAxis | None = FIRST
    samples_known: bool = True
    cells: WeightCells = field(default_factory=lambda: WeightCells(""))
    bank: str = ""
    batch_axis_of_use: tuple[BatchAxis | None, ...] = ()
    rotated: bool = False
    matrix: tuple[object, ...] = ()
    mitigation: WeightMitigation = field(default_factory=WeightMitigation)
    scaling: Tensor | None = None
    feedback: ErrorFeedback | None = None
    observed: WeightInputs | None = field(default=None, repr=False)
    range_guessed: bool = False
    calibrated_square: float | None = None
    released: bool = False
    held: Held | None = field(default=None, init=False, repr=False)

    def product(
        self,
        x: Tensor,
        w: Tensor,
        origin: Tensor | None = None,
        memory_mask: Mask | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Multiply inputs by weights on crossbars: x @ w.T + bias.

        Args:
            x: inputs [..., M, I], or [..., G, M, I].
            w: the weights [O, I], or [G, O, I].
            origin: the parameter that w is a copy of; None if it is not a copy.
            memory_mask: the mask of inputs that are not the new tokens of the call, as in `inputs_shown`; None if
                `State.memory` knows it.
            bias: [O], added digitally; None for none.

        Raises:
            BadInput: inputs and weights have different types; or read noise is drawn and the samples are not known.
        """
        y = weight_product(self, x, w, bias) if origin is None and memory_mask is None else None
        if y is not None:
            return y
        return add_bias(self._product(x, w, origin, memory_mask), bias)

    def _product(self, x: Tensor, w: Tensor, origin: Tensor | None, memory_mask: Mask | None) -> Tensor:
        """`product` of any kind, without a bias."""
        self._check_values(x, w)
        if x.numel() == 0:
            return x @ (torch.empty_like(w, device=x.device) if self.released else w).transpose(-2, -1)
        if memory_mask is None and self.state.memory.noted:
            memory_mask = self.state.memory.mask_of(x)
        use, dtype, weights = self.state.use(self.name, self.calls_per_forward), x.dtype, self.noted(w)
        axes = self.batch_axis_of_use
        axis = axes[use.call_index[0] if use.call_index else 0] if axes else self.batch_axis
        if self.observed is not None and self.state.mode == "observe vectors":
            self.observed.add(x.detach(), weights, memory_mask if memory_mask is not None else use.info.token_mask)
        transformed = self.rotated or self.scaling is not None
        if transformed or self.simulated:
            x = widened(x, self.name)
        if transformed:
            x, w = self.transformed_inputs(x), self._weights_for_product(w, x.dtype)
        if self.state.mode == "observe inputs":
            self._observe_weights(weights, x, axis)
        if not self.simulated:
            return self.exact_product(x, w).to(dtype)
        if dtype is not weights.dtype and not torch.is_autocast_enabled(x.device.type):
            raise BadInput(
                f"{self.name}: inputs are {dtype} and weights {weights.dtype}; give both the same type, as the digital "
                "layer needs too"
            )
        shape, w = x.shape, w.to(x.dtype)
        cells = None if self.state.mode in ("ideal", "written") else self.written_cells(weights, x.dtype, use, origin)
        streams: Streams | None = self.read_stream(use) if self.noisy_reads else None
        if not self.noisy_reads or axis is None:
            x = x.reshape(1, -1, shape[-1]) if w.dim() == 2 else x
            return self.multiply(x, w, cells, streams).reshape(*shape[:-1], w.shape[-2]).to(dtype)
        samples = self._samples(x, axis)
        # A sample with a single input vector keeps its axis M, which a bank of matrices [G, O, I] needs.
        single = w.dim() > 2 and axis.axis == x.dim() - 2 and x.shape[-2] == samples
        x = axis.move_samples_first(x, samples)
        x = x.unsqueeze(-2) if single else x
        lead, queries = x.shape[:-1], None
        if w.dim() == 2:
            queries = x.shape[-2] if x.dim() == 3 else None
            x = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)
        if cells is not None:
            memory_mask, by_token = memory_mask if w.dim() == 2 else None, self.reads_by_token
            streams = read_streams(
                self.read_stream(use), x.shape, use.info, queries, by_token=by_token, memory_mask=memory_mask
            )
        y = self.multiply(x, w, cells, streams).reshape(*lead, w.shape[-2])
        y = y.squeeze(-2) if single else y
        return axis.move_samples_back(y, shape[axis.axis]).to(dtype)

    def _check_values(self, x: Tensor, w: Tensor) -> None:
        """Refuse factors without values, but for weights that were given up and are needed in cells alone.

        Raises:
            BadInput: a factor is refused, or cells with weights that were given up are not on the device of inputs.
        """
        refuse_hidden(self.name, x, *(() if self.released else (w,)))
        if not self.released:
            return
        check_meta(self.name, w)
        cells = self.cells.cells
        if cells is None or self.state.mode not in ("run", "run weights"):
            raise BadInput(needs_weights(self.name))
        if x.device != cells.unit.device:
            raise BadInput(
                f"{self.name}: gets inputs on {x.device}, but its weights were given up (keep_original=False), and "
                f"cells hold them on {cells.unit.device}; move the model and its inputs there, or move the original "
                f"to {x.device} before its conversion"
            )

    def noted(self, w: Tensor) -> Tensor:
        """Weights without gradients, noted for the next call."""
        if not self.released:
            self.state.fingerprints.note(self.name, w)
        return w.detach()

    def _observe_weights(self, w: Tensor, x: Tensor, axis: BatchAxis | None) -> None:
        """Note the size of the weights; refuse inputs for which no read noise could be drawn."""
        self.range_guessed, self.calibrated_square, self.state.growth_told = False, square_sum(w), False
        if self.noisy_reads and axis is not None:
            self._samples(x, axis)

    def transformed_inputs(self, x: Tensor) -> Tensor:
        """The inputs that the rows get for x[..., I]: divided by the factors, and rotated."""
        x = x if self.scaling is None else x / self.scaling.to(x)
        return rotate(x) if self.rotated else x

    def transformed_weights(self, w: Tensor) -> Tensor:
        """The matrix that is written for w[..., O, I]: multiplied by the factors, and rotated."""
        w = w if self.scaling is None else w * self.scaling.to(w)
        return rotate(w) if self.rotated else w

    def _weights_for_product(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        """Transformed weights where they matter (exact products, gradients that flow to them); elsewhere w itself."""
        used = self.state.mode not in ("run", "run weights") or (torch.is_grad_enabled() and w.requires_grad)
        return self.transformed_weights(w.to(dtype)) if used else w

    def mitigate(
        self,
        array: Crossbar,
        rotated: bool,
        mitigation: WeightMitigation,
        scaling: Tensor | None,
        feedback: ErrorFeedback | None = None,
    ) -> None:
        """Write the weights in another way from now on, and forget all calibrated ranges.

        Raises:
            BadInput: the weights were given up.
        """
        if self.released:
            raise BadInput(needs_weights(self.name))
        self.array, self.rotated, self.mitigation, self.scaling = array, rotated, mitigation, scaling
        self.feedback = feedback
        self.x_range = self.adc_range = None

    @property
    def codec(self) -> Codec:
        """The codec that turns transformed weights into codes."""
        if not self.mitigation.unbiased:
            return Codec(self.array, rounded=self.state.rounded)
        return Codec(self.array, rounded=self.state.rounded, round_last=True, trade=TRADE)

    def range(self, w: Tensor) -> Tensor:
        """The value of the largest code of transformed weights w[..., O, I]; broadcasts against them."""
        full = encoding.full_range(w, self.array)
        return full if self.mitigation.range == 1.0 else self.mitigation.range * full

    def _samples(self, x: Tensor, axis: BatchAxis) -> int:
        """The number of samples that inputs hold.

        Raises:
            BadInput: nothing tells it, so samples cannot draw their own read noise.
        """
        samples = samples_in(x, axis, self.state)
        if samples is None or not self.samples_known:
            count = "" if self.state.samples is None else f" for {self.state.samples} samples"
            raise BadInput(
                f"{self.name}: inputs of shape {tuple(x.shape)}{count} do not show which rows belong to which sample, "
                "so they cannot draw the read noise of their samples; name one sample per row of the batch, use "
                f"level='noise', or keep it digital with rules={{{self.pattern!r}: None}}"
            )
        return samples

    @property
    def pattern(self) -> str:
        """A pattern for rules that matches the module or the bank of matrices, and those like it in other layers."""
        return re.sub(r"\d+", "*", self.bank or self.name.partition("#")[0])

    def written_cells(
        self, w: Tensor, dtype: torch.dtype, use: Use, origin: Tensor | None = None
    ) -> Folded | Programmed:
        """The cells that hold w[..., O, I]: those of the last call if nothing has changed, otherwise written now.

        The address and version of `origin` (see `product`) show a change where w is a copy.
        """
        state, last = self.state, self.cells
        settings = (state.seed, state.chip, use.step, state.level, state.rounded)
        if self.released:
            if last.cells is None or last.key[0] != settings:
                raise BadInput(needs_weights(self.name))
            return last.cells
        source = w if origin is None else origin
        key = (
            settings,
            source.data_ptr(),
            0 if source.is_inference() else source._version,
            (dtype, w.device, tuple(w.shape), source.stride()),
            state.fingerprints.scattered(w),
        )
        # A checksum reads all weights, which is as much work as the product with a single token: once a text is enough.
        # A training step writes anew in any case, and weights stay as they are from its call to its gradients.
        goes_on = use.info.goes_on and key == last.key
        bits = None if use.step is not None else last.checksum if goes_on else state.fingerprints.checksum(w)
        if last.cells is not None and (key, bits) == (last.key, last.checksum):
            return last.cells
        if bits is not None and self.calibrated_square is not None and not state.growth_told:
            now = square_sum(w)
            state.growth_told = has_grown(self.calibrated_square, now)
            if state.growth_told:
                warn_of_growth(self.name, self.calibrated_square, now)
        w = self.transformed_weights(w.to(dtype))
        array = self.written_array(use)
        cells: Folded | Programmed = self.write_function(array, use)(
            w,
            array,
            codec=self.codec,
            w_range=self.range(w),
            stream=use.stream.child(last.name),
            fault_stream=use.stream.child("faults", last.name),
            feedback=self._corrections(use),
        )
        if state.half_cells and use.step is None and isinstance(cells, Folded):
            cells = halved(cells)
        last.cells, last.key, last.checksum = cells, key, bits
        return cells  # another thread may have written last.cells by now

    def release(self, w: Tensor) -> None:
        """Write weights w[O, I] that are given up afterward, for the present settings of the model."""
        dtype = torch.promote_types(w.dtype, torch.float32)
        self.written_cells(w, dtype, Use(CallInfo(), None, self.state.root, ()))
        self.released = True

    def _corrections(self, use: Use) -> ErrorFeedback | None:
        """The corrections of errors in weights that are written later; None for none, or without residual writing.

        Raises:
            BadInput: weights are written in a training step, which would take minutes.
        """
        if self.feedback is not None and use.step is not None:
            raise BadInput(
                f"{self.name}: residual.feedback writes weights input by input, which is too slow for each step of a "
                "training; train without feedback, and set it for the evaluation"
            )
        return self.feedback if self.state.rounded else None


def samples_in(factor: Tensor, axis: BatchAxis, state: State) -> int | None:
    """The number of samples that a factor holds; None if nothing tells it."""
    known = state.samples
    if known is not None and factor.shape[axis.axis] % known == 0:
        return known
    return None if current_samples() is not None else axis.samples(factor) or None


def share_ranges(operands: Iterable[Operand]) -> None:
    """Give matrices of a bank that no calibration input has used the widest input range of the others."""
    for members in _banks(operands):
        seen = [member.x_range for member in members if member.x_range is not None]
        for member in members:
            if member.x_range is None and seen:
                member.x_range, member.range_guessed = torch.stack(seen).amax(dim=0), True


def share_converter_ranges(operands: Iterable[Operand]) -> None:
    """Give matrices of a bank that no calibration input has used the widest converter range of the others."""
    for members in _banks(operands):
        seen = [member.adc_range for member in members if member.adc_range is not None]
        if not seen:
            continue
        common = reduce(lambda a, b: widest(a, (torch.as_tensor(b[0]), torch.as_tensor(b[1]))), seen)
        for member in members:
            if member.adc_range is None and member.calibrates_converters():
                member.adc_range = common


def guessed_banks(operands: Iterable[Operand]) -> dict[str, tuple[int, int]]:
    """Bank -> how many of its matrices calibration inputs have used, and how many there are; only if less than half."""
    counts = {
        members[0].bank: (sum(not member.range_guessed for member in members), len(members))
        for members in _banks(operands)
    }
    return {bank: (used, total) for bank, (used, total) in counts.items() if 2 * used < total}


def _banks(operands: Iterable[Operand]) -> list[list[WeightOperand]]:
    """The matrices of each bank."""
    banks: dict[str, list[WeightOperand]] = {}
    for operand in operands:
        if isinstance(operand, WeightOperand) and operand.bank:
            banks.setdefault(operand.bank, []).append(operand)
    return list(banks.values())
