"""Runs of two models on the same inputs, and the difference between their outputs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import batch_size, call
from ohmformer.capture.torch_private import tree_map_only
from ohmformer.errors import BadInput
from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.streams import Stream, samples

TOLERANCE = 1e-4
"""Limit of the norm of the difference over that of the output: far above float32 rounding, far below any mistake."""


def named_rows(sample: Any, axis: int) -> AbstractContextManager[None]:
    """Context in which the rows of a sample batch are the samples 0..B-1."""
    return samples(range(batch_size(sample, axis)))


def tolerance(model: nn.Module) -> float:
    """Return `TOLERANCE`; for half precision, of the model or by autocast, four rounding steps."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    steps = [torch.finfo(parameter.dtype).eps for parameter in parameters]
    for device in {parameter.device.type for parameter in parameters}:
        if torch.is_autocast_enabled(device):
            steps.append(torch.finfo(torch.get_autocast_dtype(device)).eps)
    return max(TOLERANCE, 4 * max(steps, default=0.0))


def difference(expected: Any, output: Any) -> float:
    """Return the norm of the difference over the norm of the expected output, over all floating-point tensors in both.

    Raises:
        BadInput: the expected output has no such tensor, is zero or is not finite.
    """
    pairs = list(zip(float_tensors(expected), float_tensors(output), strict=True))
    total = sum(float(a.double().square().sum()) for a, _ in pairs)
    if not pairs:
        raise BadInput(
            "the model returns no floating-point tensor, so there is nothing to compare; convert a model that does"
        )
    if total == 0:
        raise BadInput("the model's output on the sample is zero: the check would prove nothing; initialize its head")
    if not total < float("inf"):
        raise BadInput("the model's output on the sample holds NaN or infinity; check the sample and the model")
    error = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return float((error / total) ** 0.5)


def relative_difference(result: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of the expected result."""
    return float((result - expected).norm() / expected.norm())


@dataclass
class ModuleCalls:
    """The floating-point tensors that all calls of a module in one run of its model got and gave.

    Attributes:
        inputs: tensors among the arguments.
        outputs: tensors in the outputs.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def module_calls(model: nn.Module, sample: Any) -> dict[str, ModuleCalls]:
    """Run a model and return name -> calls of every module that ran, in order of completion."""
    calls: dict[str, ModuleCalls] = {}
    handles = []
    for name, module in model.named_modules():

        def record(_module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            calls_of_module = calls.setdefault(name, ModuleCalls())
            calls_of_module.inputs.extend(float_tensors((args, kwargs)))
            calls_of_module.outputs.extend(float_tensors(output))

        handles.append(module.register_forward_hook(record, with_kwargs=True))
    try:
        call(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def nearest(module: str, names: list[str]) -> str:
    """Return the innermost module, from this one outward, that has an operand, so that a rule for it takes effect.

    Args:
        module: name of a module.
        names: names of the operands.

    Returns:
        The name of the module that has an operand; `module` itself if there is none.
    """
    having, parts = holders(names), module.split(".")
    outward = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((name for name in outward if name in having), module)


def holders(names: list[str]) -> set[str]:
    """The names of the modules that have operands of these names."""
    having = {name.partition("#")[0] for name in names}
    return having | {name.removesuffix(".K").removesuffix(".V") for name in having}


def rounding_effect(model: nn.Module, sample: Any, expected: Any, names: list[str]) -> float:
    """How much the output of a digital model in half precision changes if its products are rounded otherwise.

    Every result in half precision of the modules with operands is moved by half a step of its type, up or down by
    chance: the largest error of a rounding. So errors of many layers add up as they do in a converted model, which
    rounds the same products at other places.

    Args:
        model: the digital model.
        sample: its inputs.
        expected: its output.
        names: names of the operands.

    Returns:
        The difference of the outputs, see `difference`; 0 for a model in full precision.
    """
    having, handles = holders(names), []
    for name, module in model.named_modules():
        if name in having:
            signs = Stream("rounding", name)
            handles.append(module.register_forward_hook(partial(_rounded_otherwise, signs)))
    try:
        return difference(expected, call(model, sample))
    finally:
        for handle in handles:
            handle.remove()


def _rounded_otherwise(signs: Stream, _module: nn.Module, _args: object, output: Any) -> Any:
    """Hook of a module, see `rounding_effect`."""

    def moved(t: Tensor) -> Tensor:
        if t.dtype not in (torch.float16, torch.bfloat16):
            return t
        wide = t.float()
        return (wide + wide * signs.normal(*t.shape, like=wide).sign() * (torch.finfo(t.dtype).eps / 2)).to(t.dtype)

    return tree_map_only(Tensor, moved, output)
