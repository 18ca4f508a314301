"""The self-check of a conversion: on exact hardware the converted model must give the output of the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.inputs import batch_size, call
from ohmformer.errors import BadInput
from ohmformer.nn.shared.state import State
from ohmformer.streams import samples

TOLERANCE = 1e-4
"""Limit of the norm of the difference over that of the output: far above float32 rounding, far below any mistake."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Context in which all modules of a model are in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def tolerance(model: nn.Module) -> float:
    """Return `TOLERANCE`; for half precision, of the model or by autocast, four rounding steps."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    steps = [torch.finfo(parameter.dtype).eps for parameter in parameters]
    for device in {parameter.device.type for parameter in parameters}:
        if torch.is_autocast_enabled(device):
            steps.append(torch.finfo(torch.get_autocast_dtype(device)).eps)
    return max(TOLERANCE, 4 * max(steps, default=0.0))


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
                f"{missed[0]} was put on crossbars but the model does not call it (a fused path?); keep it digital"
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
    module = nearest(_first_difference(original, converted, sample), names)
    raise BadInput(
        f"the converted model differs from the original by {error:.2g} (norm of the difference over norm of the "
        f"output) on exact hardware{condition}, first at {module}; keep it digital with rules={{{module!r}: None}}"
    )


def nearest(module: str, names: list[str]) -> str:
    """Return the innermost module, from this one outward, that has an operand, so that a rule for it takes effect.

    Args:
        module: name of a module.
        names: names of the operands.

    Returns:
        The name of the module that has an operand; `module` itself if there is none.
    """
    holders = {name.partition("#")[0] for name in names}
    holders |= {name.removesuffix(".K").removesuffix(".V") for name in holders}
    parts = module.split(".")
    outward = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((name for name in outward if name in holders), module)


def change_padding(sample: Any) -> Any | None:
    """Return the sample with other padding; None if it has no masks [B, N] of tokens by the names of Hugging Face.

    Former padding changes its side. Then the mask hides further tokens in front (rows 0, 3, ...), behind (rows 1, 4,
    ...) or none.
    """
    if not isinstance(sample, Mapping):
        return None
    padded = dict(sample)
    for name in ("attention_mask", "decoder_attention_mask"):
        mask = padded.get(name)
        if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.is_floating_point() and mask.shape[1] > 2:
            padded[name] = _other_padding(mask)
    return padded if any(value is not sample[name] for name, value in padded.items()) else None


def _other_padding(mask: Tensor) -> Tensor:
    """Return a mask [B, N] with other padding; a row that would lose all its tokens stays unchanged."""
    N = mask.shape[1]
    places = torch.arange(N, device=mask.device)
    rows = []
    for b, row in enumerate(mask.flip(1)):
        cut = min(1 + b // 3, N // 2)
        rows.append(row * ((places >= cut) if b % 3 == 0 else (places < N - cut) if b % 3 == 1 else places >= 0))
    changed = torch.stack(rows).to(mask.dtype)
    return torch.where(changed.any(dim=1, keepdim=True), changed, mask)


def _finite_output(model: nn.Module, sample: Any) -> Any | None:
    """Return the output of the original; None if it fails on these inputs or its output is not finite."""
    try:
        output = call(model, sample)
        if not all(bool(t.isfinite().all()) for t in floats(output)):
            return None
    except Exception:  # a model may raise anything on padding that it was not made for
        return None
    return output


def named_rows(sample: Any, axis: int) -> AbstractContextManager[None]:
    """Context in which the rows of a sample batch are the samples 0..B-1."""
    return samples(range(batch_size(sample, axis)))


def difference(expected: Any, output: Any) -> float:
    """Return the norm of the difference over the norm of the expected output, over all floating-point tensors in both.

    Raises:
        BadInput: the expected output has no such tensor, is zero or is not finite.
    """
    pairs = list(zip(floats(expected), floats(output), strict=True))
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


def floats(output: Any) -> list[Tensor]:
    """Return all floating-point tensors of a nested output, and complex ones as pairs of real numbers."""
    tensors: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            tensors += [torch.view_as_real(leaf)] if leaf.is_complex() else [leaf] if leaf.is_floating_point() else []
        elif isinstance(leaf, Mapping):
            tensors += floats(list(leaf.values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            tensors += floats([getattr(leaf, each.name) for each in fields(leaf)])
    return tensors


def _first_difference(original: nn.Module, converted: nn.Module, sample: Any) -> str:
    """Return the name of the first module, in order of completion, whose output differs."""
    expected, converted_outputs = outputs_of(original, sample), outputs_of(converted, sample)
    for name, outputs in expected.items():
        for a, b in zip(outputs, converted_outputs.get(name, []), strict=False):
            if a.shape != b.shape or not float((a - b).norm()) <= tolerance(original) * float(a.norm()):
                return name or "the model itself"
    return "the model itself"


def outputs_of(model: nn.Module, sample: Any) -> dict[str, list[Tensor]]:
    """Run a model and return name -> output tensors of every module, in order of completion."""
    outputs: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in model.named_modules():

        def record(_module: nn.Module, _args: Any, output: Any, name: str = name) -> None:
            outputs.setdefault(name, []).extend(floats(output))

        handles.append(module.register_forward_hook(record))
    try:
        call(model, sample)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
