"""The error that cells are expected to make in a product with static weights.

It has a closed form, unless errors are corrected in weights that are written later: then some outputs are written.

Shapes: M input vectors, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.codes.code_moments import moments_of_values
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift
from ohmformer.nn.operands.observation import WeightInputs
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.streams import Stream

OUTPUTS = 128
"""Largest number of outputs of a matrix whose error is computed, evenly spread."""
INPUTS = 256
"""Largest number of input vectors for which it is computed, evenly spread."""
WRITTEN = 64
"""Largest number of outputs that are written where the error has no closed form, evenly spread."""


def just_written(array: Crossbar) -> Crossbar:
    """The array as it is read just after its cells were written, for which there is a closed form."""
    return array.model_copy(update={"age": 0.0}) if drift.drifts(array.cell, array.age) else array


@dataclass(frozen=True, eq=False)
class Sampled:
    """Input vectors and a part of a matrix, both as an operand transforms them.

    Attributes:
        x: [M, I] transformed input vectors.
        w: [O, I] transformed weights of some outputs.
        whole: the transformed matrix with all outputs.
        signed: False if inputs are never negative.
    """

    x: Tensor
    w: Tensor
    whole: Tensor
    signed: bool

    @staticmethod
    def of(operand: WeightOperand, seen: WeightInputs) -> Sampled:
        """Transform what an operand has observed with its present factors and rotation."""
        assert seen.weights is not None
        x, w = torch.cat(seen.kept), operand.transformed_weights(seen.weights)
        x = x[:: -(-len(x) // INPUTS)]
        return Sampled(operand.transformed_inputs(x), w[:: -(-len(w) // OUTPUTS)], w, operand.signed)

    @cached_property
    def exact(self) -> Tensor:
        """The exact product [M, O]."""
        return self.x @ self.w.transpose(-2, -1)


def expected_error(operand: WeightOperand, parts: Sequence[Sampled]) -> float:
    """Return the expected mean square error of an operand's products, with its present array and mitigation.

    Rounding of weights and inputs, saturation and the mean of write noise make the same error whenever the same weights
    are written. The rest of write noise counts by its variance, with independent cells. Noise of reads does not count.

    Args:
        operand: the weights.
        parts: what it, and the operands that share its mitigation, have observed.
    """
    return sum(_error(operand, part) for part in parts) / len(parts)


def corrected_error(operand: WeightOperand, parts: Sequence[Sampled], feedback: ErrorFeedback) -> float:
    """Return `expected_error` where errors are corrected in later weights, from writes of some outputs.

    Each output is written and corrected by itself, so those that are written have the errors that they have among all.

    Args:
        operand: the weights, whose array has `residual.feedback`.
        parts: what it, and the operands that share its mitigation, have observed.
        feedback: the corrections.
    """
    return sum(_written_error(operand, part, feedback) for part in parts) / len(parts)


def _written_error(operand: WeightOperand, part: Sampled, feedback: ErrorFeedback) -> float:
    """Return the mean square error for one matrix, by one write of some outputs with the same random numbers always."""
    array, every = just_written(operand.array), -(-len(part.w) // WRITTEN)
    w = part.w[::every]
    w_range = operand.range(w if array.scale == "column" else part.whole)
    codec, stream = operand.codec, Stream("error of calibration")
    cells = write_folded(w, array, read_noise=False, codec=codec, w_range=w_range, stream=stream, feedback=feedback)
    missed = _quantized_inputs(array, part) @ cells.values.transpose(-2, -1) - part.exact[:, ::every]
    return float(missed.square().mean())


def _error(operand: WeightOperand, part: Sampled) -> float:
    """Return the expected mean square error for one matrix."""
    array = just_written(operand.array)
    w_range = operand.range(part.w if array.scale == "column" else part.whole)
    codes = operand.codec.codes(part.w, w_range)
    mean, variance = moments_of_values(codes, array)
    unit = encoding.unit_of(w_range, array.max_code)
    inputs = _quantized_inputs(array, part)
    shift = inputs @ (mean * unit).transpose(-2, -1) - part.exact
    spread = inputs.square() @ (variance * unit.square()).transpose(-2, -1)
    return float((shift.square() + spread).mean())


def _quantized_inputs(array: Crossbar, part: Sampled) -> Tensor:
    """Return the input vectors [M, I] as the rows get them."""
    x_range = None if array.inputs.range == "dynamic" else part.x.abs().amax()
    inputs, x_unit = encoding.quantize_input(part.x, array, x_range, signed=part.signed)
    return inputs * x_unit
