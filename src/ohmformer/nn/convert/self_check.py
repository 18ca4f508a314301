"""The proof that a conversion changed nothing but the hardware: exact crossbars must give the original output."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.inputs import batch_size, call
from ohmformer.errors import BadInput
from ohmformer.nn.operands.state import State
from ohmformer.streams import samples

TOLERANCE = 1e-4
"""Largest norm of the difference over norm of the output: far above float32 rounding, far below any mistake."""


def tolerance(model: nn.Module) -> float:
    """`TOLERANCE`, or four rounding steps of a model in half precision, or of one that autocast makes so."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    steps = [torch.finfo(parameter.dtype).eps for parameter in parameters]
    for device in {parameter.device.type for parameter in parameters}:
        if torch.is_autocast_enabled(device):
            steps.append(torch.finfo(torch.get_autocast_dtype(device)).eps)
    return max(TOLERANCE, 4 * max(steps, default=0.0))


def check(original: nn.Module, converted: nn.Module, state: State, names: list[str], sample: Any, axis: int) -> None:
    """Compare both models on the sample, with quantisers, converters and noise bypassed; all `names` must be used.

    Raises:
        BadInput: they differ (the first layer that does is named), or the check would prove nothing.
    """
    training = {module: module.training for module in original.modules()}
    original.eval()
    try:
        with torch.no_grad(), named_rows(sample, axis):
            expected = call(original, sample)
            state.mode = "bypass"
            state.visited.clear()
            found = call(converted, sample)
            error = difference(expected, found)
            if not error <= tolerance(original):
                if not difference(expected, call(original, sample)) <= tolerance(original):
                    raise BadInput(
                        "the model itself gives another output when it is called again; make it deterministic"
                    )
                where = _first_difference(original, converted, sample)
                raise BadInput(
                    f"the converted model differs from the original by {error:.2g} (norm of the difference over norm "
                    f"of the output) on exact hardware, first at {where}; keep it digital with "
                    f"rules={{{where!r}: None}}"
                )
            missed = [name for name in names if name not in state.visited]
            if missed:
                raise BadInput(
                    f"{missed[0]} was put on crossbars but the model passes it by (a fused path?); keep it digital"
                )
    finally:
        state.mode = "run"
        for module, mode in training.items():
            module.training = mode


def named_rows(sample: Any, axis: int) -> AbstractContextManager[None]:
    """Rows of the sample batch as samples 0..B-1."""
    return samples(range(batch_size(sample, axis)))


def difference(expected: Any, found: Any) -> float:
    """Norm of the difference over norm of the expected output, over all floating tensors of a nested output.

    Raises:
        BadInput: the expected output is zero or not finite, so that nothing can be compared.
    """
    pairs = list(zip(floats(expected), floats(found), strict=True))
    total = sum(float(a.double().square().sum()) for a, _ in pairs)
    if not pairs:
        raise BadInput("the model returns no floating-point tensor, so there is nothing to compare; convert what does")
    if total == 0:
        raise BadInput("the model's output on the sample is zero: the check would prove nothing; initialise its head")
    if not total < float("inf"):
        raise BadInput("the model's output on the sample holds NaN or infinity; check the sample and the model")
    error = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return float((error / total) ** 0.5)


def floats(output: Any) -> list[Tensor]:
    """All floating tensors of a nested output, complex ones as real."""
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found += [torch.view_as_real(leaf)] if leaf.is_complex() else [leaf] if leaf.is_floating_point() else []
        elif isinstance(leaf, Mapping):
            found += floats(list(leaf.values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            found += floats([getattr(leaf, each.name) for each in fields(leaf)])
    return found


def _first_difference(original: nn.Module, converted: nn.Module, sample: Any) -> str:
    """Name of the first module, in order of completion, whose output differs."""
    expected, found = _outputs(original, sample), _outputs(converted, sample)
    for name, outputs in expected.items():
        for a, b in zip(outputs, found.get(name, []), strict=False):
            if a.shape != b.shape or not float((a - b).norm()) <= tolerance(original) * float(a.norm()):
                return name or "the model itself"
    return "the model itself"


def _outputs(model: nn.Module, sample: Any) -> dict[str, list[Tensor]]:
    """Output tensors of every module, in order of completion."""
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in model.named_modules():

        def keep(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
            seen.setdefault(name, []).extend(floats(output))

        handles.append(module.register_forward_hook(keep))
    try:
        call(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    return seen
