"""Range and radix that are chosen where errors are corrected in later weights, against what cells then hold."""

from __future__ import annotations

import pytest
import torch

import ohmformer as of
from ohmformer.array import encoding
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.array.residual.spec import Residual
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.calibration.weight_error import Sampled, corrected_error
from ohmformer.nn.calibration.weight_recipes import RESIDUAL_RANGES, FittedMitigation, with_feedback
from ohmformer.nn.convert.handle import Handle, crossbars
from ohmformer.nn.convert.weight_mitigation import assignment, error_feedback, observing
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.streams import Stream
from tests.array.residual.test_feedback import correlated
from tests.nn.calibration.test_calibrate_weights import hardware

I, O = 300, 40
INPUTS = correlated(600)


def observed(sigma: float) -> tuple[Handle, WeightOperand, ErrorFeedback]:
    """A linear layer with correlated inputs, what it observes, and the corrections that follow from it."""
    torch.manual_seed(0)
    model = of.convert(torch.nn.Linear(I, O), hardware(sigma), sample=INPUTS, level="noise")
    handle = crossbars(model)
    [operand] = (each for each in handle.operands if isinstance(each, WeightOperand))
    with torch.no_grad(), observing([operand], moments=True), handle.state.set_mode("observe vectors"):
        model(INPUTS)
        feedback, seen = error_feedback([operand]), operand.observed
    operand.observed = seen
    assert feedback is not None
    return handle, operand, feedback


def brute_force(handle: Handle, operand: WeightOperand, feedback: ErrorFeedback, spec: WeightMitigation) -> float:
    """The mean square error of the products of all outputs, over several chips."""
    array = assignment(handle, operand.name, spec).array
    assert array is not None
    assert operand.observed is not None
    assert operand.observed.weights is not None
    w, total = operand.observed.weights, 0.0
    w_range = (spec.range or 1.0) * encoding.full_range(w, array)
    codes = (w / w_range * array.max_code).clamp(-array.max_code, array.max_code)
    for seed in range(3):
        held = write_folded(codes, array, w_range=w_range, stream=Stream(seed), feedback=feedback).values
        total += float((INPUTS @ (held - w).T).square().mean())
    return total


@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.slow
def test_range_and_radix_are_those_that_a_trial_of_all_finds(sigma: float) -> None:
    handle, operand, feedback = observed(sigma)
    start = FittedMitigation(WeightMitigation(range=0.7, radix=1, scale="column", residual=Residual()))
    found = with_feedback(handle, [operand], start, feedback)
    assert found is not None
    assert found.feedback is feedback
    assert found.mitigation.residual == Residual(feedback=True)
    errors = {
        (radix, share): brute_force(
            handle,
            operand,
            feedback,
            WeightMitigation(radix=radix, range=share, scale="column", residual=Residual(feedback=True)),
        )
        for radix in (None, 3, 2, 1)
        for share in RESIDUAL_RANGES
    }
    chosen = found.mitigation.radix, found.mitigation.range
    assert errors[chosen] < 1.05 * min(errors.values())  # other chips and outputs order near candidates differently
    assert errors[chosen] < 0.9 * errors[1, 0.7]


def test_the_error_is_that_of_what_is_written() -> None:
    handle, operand, feedback = observed(0.5)
    spec = WeightMitigation(radix=2, scale="column", residual=Residual(feedback=True))
    place = assignment(handle, operand.name, spec)
    assert place.array is not None
    assert operand.observed is not None
    operand.mitigate(place.array, place.rotated, place.mitigation, None)
    parts = [Sampled.of(operand, operand.observed)]
    error = corrected_error(operand, parts, feedback)
    assert error == corrected_error(operand, parts, feedback), "always the same random numbers"
    assert error == pytest.approx(brute_force(handle, operand, feedback, spec) / 3, rel=0.15)
