"""The self-check of a conversion: on exact hardware the converted model must give the output of the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ohmformer.capture.inputs import call
from ohmformer.capture.pytorch_quirks import evaluation_mode
from ohmformer.errors import BadInput
from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.nn.checks.comparing import (
    TOLERANCE,
    difference,
    module_calls,
    named_rows,
    nearest,
    rounding_effect,
    tolerance,
)
from ohmformer.nn.checks.sample_variants import change_padding
from ohmformer.nn.shared.state import State


def check(original: nn.Module, converted: nn.Module, state: State, names: list[str], sample: Any, axis: int) -> None:
    """Compare both models on the sample, with ideal cells that hold written values without rounding or noise.

    If the sample has a mask of its tokens, they are compared with other padding too.

    Args:
        original: the digital model.
        converted: the converted model.
        state: its settings.
        names: names of the operands that the sample must use.
        sample: the sample batch.
        axis: the axis of the inputs that holds the samples.

    Raises:
        BadInput: the outputs differ (the message names the first module that does), or the check would prove nothing.
    """
    with evaluation_mode(original), torch.no_grad(), named_rows(sample, axis), state.set_mode("ideal"):
        expected = call(original, sample)
        _compare(original, converted, sample, expected, names)
        used = state.threads.call.uses
        missed = [name for name in names if name not in used]
        if missed:
            raise BadInput(
                f"{missed[0]} was put on crossbars but the model does not call it (a fused path, or a part that this "
                "sample does not reach?); keep it digital by a rule, or give a sample that reaches it"
            )
        padded = change_padding(sample) if axis == 0 else None
        expected = None if padded is None else _finite_output(original, padded)
        if expected is not None:
            _compare(original, converted, padded, expected, names, " with other padding")


def _compare(
    original: nn.Module,
    converted: nn.Module,
    sample: Any,
    expected: Any,
    names: list[str],
    condition: str = "",
) -> None:
    """Refuse a converted model whose output on ideal cells is not that expected.

    Args:
        original: the digital model.
        converted: the converted model.
        sample: inputs of both.
        expected: output of the original.
        names: names of the operands.
        condition: phrase for the message if the inputs are not those of the sample.

    Raises:
        BadInput: the outputs differ, or those of the original differ from call to call.
    """
    try:
        output = call(converted, sample)
    except BadInput:
        if not condition:
            raise
        return  # another path through the model than that of the sample; calls that take it are refused
    error = difference(expected, output)
    if error <= tolerance(original):
        return
    if not difference(expected, call(original, sample)) <= tolerance(original):
        raise BadInput("the model itself gives another output when it is called again; make it deterministic")
    if tolerance(original) > TOLERANCE and error <= rounding_effect(original, sample, expected, names):
        return  # errors of half precision add up in deep models
    module = nearest(_first_difference(original, converted, sample), names)
    raise BadInput(
        f"the converted model differs from the original by {error:.2g} (norm of the difference over norm of the "
        f"output) on exact hardware{condition}, first at {module}; keep it digital with rules={{{module!r}: None}}"
    )


def _finite_output(model: nn.Module, sample: Any) -> Any | None:
    """Return the output of the original; None if it fails on these inputs or its output is not finite."""
    try:
        output = call(model, sample)
        if not all(bool(t.isfinite().all()) for t in float_tensors(output)):
            return None
    except Exception:  # a model may raise anything on padding that it was not made for
        return None
    return output


def _first_difference(original: nn.Module, converted: nn.Module, sample: Any) -> str:
    """Return the name of the first module, in order of completion, whose output differs."""
    expected, found = module_calls(original, sample), module_calls(converted, sample)
    for name, calls in expected.items():
        for a, b in zip(calls.outputs, found[name].outputs if name in found else [], strict=False):
            if a.shape != b.shape or not float((a - b).norm()) <= tolerance(original) * float(a.norm()):
                return name or "the model itself"
    return "the model itself"
