"""Mitigation of static weights in a converted model: its factors follow the inputs of a calibration.

Shapes: I inputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ohmformer.array.residual.feedback import ErrorFeedback, fit_feedback
from ohmformer.capture.inputs import call
from ohmformer.errors import BadInput, check_type
from ohmformer.hardware.assignment import WeightAssignment, assign_weight
from ohmformer.hardware.operand_names import weight_rule_names
from ohmformer.hardware.rules import Rule, RuleBook
from ohmformer.mitigation.spec import WeightMitigation
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Handle, crossbars, undone_on_failure
from ohmformer.nn.convert.operand_choice import check_closed_form
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.observation import WeightInputs
from ohmformer.nn.operands.weight import WeightCells, WeightOperand

RIDGE = 1e-3
"""Smallest maximum of an input channel, as a share of their mean, so that unused inputs get no extreme factor."""


def set_weights(model: nn.Module, spec: WeightMitigation | None) -> None:
    """Set one mitigation for all static weights in memristive cells, fitted to the sample of the conversion.

    Rules that set the mitigation of weights have precedence. Weights are written again when they are next used.

    Args:
        model: a converted model; it is changed.
        spec: the mitigation; None for none.

    Raises:
        BadInput: the model was not converted, its arrays cannot have this mitigation, or another thread calls the model
            or changes its settings.
    """
    handle = crossbars(model)
    remedy = "WeightMitigation(scaling=0.5, scale='column') for all static weights, or None"
    check_type("set_weights", "spec", spec, (WeightMitigation, type(None)), remedy)
    chosen = spec or WeightMitigation()
    with handle.state.changing("set_weights", unfinished=True), undone_on_failure(handle):
        assigned = assignments(handle, dict.fromkeys((o.name for o in weight_operands(handle)), chosen))
        handle.weights = chosen
        mitigate(handle, assigned, {})
        fit_weights(model, handle)
        calibrate_ranges(model)
    warn_of_unseen(model, handle.operands, stacklevel=2)


def weight_operands(handle: Handle) -> list[WeightOperand]:
    """Return the operands of static weights."""
    return [operand for operand in handle.operands if isinstance(operand, WeightOperand)]


def assignments(handle: Handle, chosen: Mapping[str, WeightMitigation]) -> dict[str, WeightAssignment]:
    """Return operand -> its place with a mitigation.

    Args:
        handle: the converted model.
        chosen: operand -> mitigation; others have that of the conversion.

    Raises:
        BadInput: an array does not support its mitigation.
    """
    names = [operand.name for operand in weight_operands(handle)]
    return {name: assignment(handle, name, chosen.get(name, handle.weights)) for name in names}


def assignment(handle: Handle, name: str, mitigation: WeightMitigation) -> WeightAssignment:
    """Return the place of an operand with a mitigation; rules have precedence.

    Raises:
        BadInput: the array does not support the mitigation.
    """
    found = assign_weight(handle.hardware, rule_of(handle, name), mitigation)
    assert found.array is not None
    check_closed_form(name, found.array, found.mitigation)
    return found


def rule_of(handle: Handle, name: str) -> Rule:
    """Return the rule that holds for an operand of static weights."""
    return RuleBook(handle.rules).rule(weight_rule_names(name))


def mitigate(
    handle: Handle,
    assigned: Mapping[str, WeightAssignment],
    scaling: Mapping[str, Tensor],
    feedback: Mapping[str, ErrorFeedback] | None = None,
) -> None:
    """Let weights be written with other mitigations from now on, equal weights once, and forget their ranges.

    Args:
        handle: the converted model.
        assigned: operand -> its place, for all operands of static weights.
        scaling: operand -> factors [I] of its weights; others have none.
        feedback: operand -> corrections of errors in its later weights; others have none.
    """
    feedback = feedback or {}
    cells: dict[tuple[object, ...], WeightCells] = {}
    for operand in weight_operands(handle):
        place = assigned[operand.name]
        assert place.array is not None
        factors, corrections = scaling.get(operand.name), feedback.get(operand.name)
        operand.mitigate(place.array, place.rotated, place.mitigation, factors, corrections)
        key = (operand.matrix, place.array, place.rotated, place.mitigation)
        operand.cells = cells.setdefault(key, WeightCells(operand.name))


@contextmanager
def observing(operands: Iterable[WeightOperand], *, moments: bool = False) -> Iterator[None]:
    """Context in which operands keep the input vectors that they get in the mode `observe vectors`.

    Args:
        operands: the operands.
        moments: collect the second moments of all input vectors, too.
    """
    operands = list(operands)
    for operand in operands:
        operand.observed = WeightInputs(moments=torch.zeros((), dtype=torch.float64) if moments else None)
    try:
        yield
    finally:
        for operand in operands:
            operand.observed = None


def fit_weights(model: nn.Module, handle: Handle) -> None:
    """Fit what the mitigations of weights need to know of their inputs to the sample: factors and corrections.

    Raises:
        BadInput: errors are to be corrected in a stack of matrices.
    """
    operands = weight_operands(handle)
    scaled = [operand for operand in operands if operand.mitigation.scaling is not None]
    correcting = [operand for operand in operands if corrects_errors(operand)]
    if not (scaled or correcting):
        return
    with observing([*scaled, *correcting], moments=bool(correcting)):
        with torch.no_grad(), named_rows(handle.sample, handle.axis), handle.state.set_mode("observe vectors"):
            call(model, handle.sample)
        for group in groups(scaled):
            for operand in group:
                assert operand.mitigation.scaling is not None
                operand.scaling = scaling_factors(group, operand.mitigation.scaling)
        for group in groups(correcting, alike=True):
            feedback = error_feedback(group)
            for operand in group:
                operand.feedback = feedback


def corrects_errors(operand: WeightOperand) -> bool:
    """True if errors of weights are corrected in weights that are written later."""
    return operand.array.residual is not None and operand.array.residual.feedback


def error_feedback(group: Sequence[WeightOperand]) -> ErrorFeedback | None:
    """Return the corrections for operands that share a mitigation, from the moments that they have observed.

    Returns:
        The corrections; None if none of the operands was used.

    Raises:
        BadInput: an operand is a stack of matrices.
    """
    seen = [operand.observed for operand in group if operand.observed is not None and operand.observed.kept]
    if any(each.several for each in seen):
        raise BadInput(
            f"{group[0].name}: residual.feedback corrects errors within one matrix, and this is a stack of matrices; "
            f"leave feedback out with rules={{{group[0].pattern!r}: ...}}"
        )
    found = [each.moments for each in seen if each.moments is not None]
    if not found:
        return None
    moments = torch.stack(found).sum(dim=0)
    if not bool(moments.isfinite().all()):
        raise BadInput(
            f"{group[0].name}: residual.feedback: inputs of the sample or the calibration are so large that their "
            f"squares overflow; scale them down, or leave feedback out with rules={{{group[0].pattern!r}: ...}}"
        )
    exponent = moments.diagonal().mean().frexp().exponent
    moments = moments.ldexp(-2 * (exponent // 2)).float()  # only ratios count, and these fit into float32
    for _ in range(2):  # both axes, as the inputs are transformed
        moments = group[0].transformed_inputs(moments).T
    return fit_feedback(moments)


def groups(operands: Iterable[WeightOperand], *, alike: bool = False) -> list[list[WeightOperand]]:
    """Return the operands that have a mitigation in common: those that share a matrix, and those of one bank.

    Args:
        operands: the operands.
        alike: part those whose inputs are transformed in different ways, as rules may say.
    """
    members: dict[object, list[WeightOperand]] = {}
    for operand in operands:
        transform = (operand.rotated, operand.mitigation.scaling) if alike else ()
        members.setdefault((operand.bank or operand.matrix or operand.name, transform), []).append(operand)
    return list(members.values())


def scaling_factors(group: Sequence[WeightOperand], exponent: float) -> Tensor | None:
    """Return the factors s_k = max|x_k|^a / max|w_k|^(1 - a) [I] of observed operands, with a geometric mean of one.

    Args:
        group: operands that have the factors in common.
        exponent: a.

    Returns:
        The factors; None if none of the operands was used.
    """
    seen = [operand.observed for operand in group if operand.observed is not None and operand.observed.kept]
    if not seen:
        return None
    inputs = torch.stack([each.largest for each in seen if each.largest is not None]).amax(dim=0).double()
    weights = torch.stack([each.weights.abs().amax(dim=0) for each in seen if each.weights is not None]).amax(dim=0)
    factors = _with_floor(inputs).pow(exponent) / _with_floor(weights.double()).pow(1 - exponent)
    factors = factors / factors.log().mean().exp()
    return factors.float()


def _with_floor(largest: Tensor) -> Tensor:
    """Return maxima, none below `RIDGE` times their mean; ones if all are zero."""
    mean = largest.mean()
    return torch.where(mean > 0, torch.maximum(largest, RIDGE * mean), torch.ones_like(largest))
