"""The proof that a conversion changed nothing but the hardware: exact crossbars must give the original output."""

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
from ohmformer.nn.operands.state import State
from ohmformer.streams import samples

TOLERANCE = 1e-4
"""Largest norm of the difference over norm of the output: far above float32 rounding, far below any mistake."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all of a model is in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def tolerance(model: nn.Module) -> float:
    """`TOLERANCE`, or four rounding steps of a model in half precision, or of one that autocast makes so."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    steps = [torch.finfo(parameter.dtype).eps for parameter in parameters]
    for device in {parameter.device.type for parameter in parameters}:
        if torch.is_autocast_enabled(device):
            steps.append(torch.finfo(torch.get_autocast_dtype(device)).eps)
    return max(TOLERANCE, 4 * max(steps, default=0.0))


def check(original: nn.Module, converted: nn.Module, state: State, names: list[str], sample: Any, axis: int) -> None:
    """Compare both models on the sample, with products as ideal cells make them from what is written, without rounding.

    Where the sample has a mask of its tokens, also with other padding. All `names` must be used.

    Raises:
        BadInput: they differ (the first layer that does is named), or the check would prove nothing.
    """
    with evaluating(original), torch.no_grad(), named_rows(sample, axis), state.set_mode("ideal"):
        expected = call(original, sample)
        _compare(original, converted, state, sample, expected, names)
        used = state.threads.call.uses
        missed = [name for name in names if name not in used]
        if missed:
            raise BadInput(
                f"{missed[0]} was put on crossbars but the model passes it by (a fused path?); keep it digital"
            )
        other = repadded(sample) if axis == 0 else None
        expected = None if other is None else _attempt(original, other)
        if expected is not None:
            _compare(original, converted, state, other, expected, names, " with other padding")


def _compare(
    original: nn.Module,
    converted: nn.Module,
    state: State,
    sample: Any,
    expected: Any,
    names: list[str],
    how: str = "",
) -> None:
    """Refuse a converted model that gives another output on ideal cells, and name the first module that does."""
    try:
        found = call(converted, sample)
    except BadInput:
        if not how:
            raise
        return  # a path that the sample itself does not take: that is refused when it is taken
    error = difference(expected, found)
    if error <= tolerance(original):
        return
    if not difference(expected, call(original, sample)) <= tolerance(original):
        raise BadInput("the model itself gives another output when it is called again; make it deterministic")
    where = nearest(_first_difference(original, converted, sample), names)
    raise BadInput(
        f"the converted model differs from the original by {error:.2g} (norm of the difference over norm of the "
        f"output) on exact hardware{how}, first at {where}; keep it digital with rules={{{where!r}: None}}"
    )


def nearest(where: str, names: list[str]) -> str:
    """A module, or else the nearest one around it, that holds one of the operands, so that a rule can speak of it."""
    holders = {name.partition("#")[0] for name in names}
    holders |= {name.removesuffix(".K").removesuffix(".V") for name in holders}
    parts = where.split(".")
    around = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((name for name in around if name in holders), where)


def repadded(sample: Any) -> Any | None:
    """The sample with other padding, where it has masks [B, N] of its tokens by the names of Hugging Face.

    Row by row tokens are taken away in front, behind, or not at all, and padding that there was changes its side.
    """
    if not isinstance(sample, Mapping):
        return None
    found = dict(sample)
    for name in ("attention_mask", "decoder_attention_mask"):
        mask = found.get(name)
        if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.is_floating_point() and mask.shape[1] > 2:
            found[name] = _other_padding(mask)
    return found if any(value is not sample[name] for name, value in found.items()) else None


def _other_padding(mask: Tensor) -> Tensor:
    """A mask [B, N] whose padding stands elsewhere: every row keeps a token."""
    N = mask.shape[1]
    places = torch.arange(N, device=mask.device)
    rows = []
    for b, row in enumerate(mask.flip(1)):
        cut = min(1 + b // 3, N // 2)
        rows.append(row * ((places >= cut) if b % 3 == 0 else (places < N - cut) if b % 3 == 1 else places >= 0))
    changed = torch.stack(rows).to(mask.dtype)
    return torch.where(changed.any(dim=1, keepdim=True), changed, mask)


def _attempt(model: nn.Module, sample: Any) -> Any | None:
    """The output for a sample that was made up, or None where the model cannot use it."""
    try:
        output = call(model, sample)
        if not all(bool(t.isfinite().all()) for t in floats(output)):
            return None
    except Exception:  # anything that a model may do with padding it was not made for
        return None
    return output


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
        raise BadInput("the model's output on the sample is zero: the check would prove nothing; initialize its head")
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
    expected, found = outputs_of(original, sample), outputs_of(converted, sample)
    for name, outputs in expected.items():
        for a, b in zip(outputs, found.get(name, []), strict=False):
            if a.shape != b.shape or not float((a - b).norm()) <= tolerance(original) * float(a.norm()):
                return name or "the model itself"
    return "the model itself"


def outputs_of(model: nn.Module, sample: Any) -> dict[str, list[Tensor]]:
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
