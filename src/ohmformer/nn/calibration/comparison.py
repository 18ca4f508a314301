"""Comparison of recipes for K and V: the losses of a model's answers, and the gain that chance may explain.

Shapes: N inputs, T tokens, K classes: logits[N, K] or [N, T, K].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.stats.intervals import student_errors

STANDARD_ERRORS = 1.0
"""A recipe must be better than doing nothing by this number of standard errors of the paired difference. A stricter
test would miss small gains, which a hundred inputs hardly show. The number holds for many inputs; `student_errors`
raises it for few, since the deviation is estimated from them: 1.84 for two inputs."""

LEAST_GAIN = 1e-3
"""Smallest share of the loss through noise that a recipe must remove to be chosen."""


@dataclass(frozen=True)
class Answer:
    """The output of a model for one call.

    Attributes:
        values: log-probabilities [..., K], or the flattened output of each sample [N, .].
        classes: True if `values` are log-probabilities.
        rows: number of samples N in the call.
    """

    values: Tensor
    classes: bool
    rows: int


def answer_of(output: Any, rows: int) -> Answer:
    """Return the answer in an output for `rows` samples: log-probabilities if there are logits, all tensors otherwise.

    Outputs without an axis of samples count as one sample.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return Answer(F.log_softmax(logits.double(), dim=-1), True, rows)
    leaves = [leaf.double() for leaf in float_tensors(output)]
    by_sample = [leaf.flatten(1) for leaf in leaves if leaf.dim() > 1 and len(leaf) == rows]
    return Answer(torch.cat(by_sample or [leaf.reshape(1, -1) for leaf in leaves], dim=1), False, rows)


def losses_of(reference: list[Answer], answers: list[Answer]) -> Tensor:
    """Return the loss of every sample, or of each of its tokens, in all calls.

    Args:
        reference: answers of the original, call by call.
        answers: answers to compare with them.
    """
    return torch.cat([_loss(r, a) for r, a in zip(reference, answers, strict=True)])


def _loss(reference: Answer, answer: Answer) -> Tensor:
    """Return cross-entropies of class probabilities, or relative squared differences of other outputs."""
    if reference.classes:
        return -(reference.values.exp() * answer.values).sum(dim=-1).flatten()
    error = (reference.values - answer.values).square().sum(dim=1)
    return error / reference.values.square().sum(dim=1).clamp(min=1e-300)


def input_numbers(answers: list[Answer], axis: int) -> Tensor:
    """Return for each loss the number of its input, counted over all calls.

    If a call does not return one or more losses per input, all its losses count as one input.

    Args:
        answers: the answers, call by call.
        axis: the axis of the inputs of the model that holds the samples; tried first among the axes of answers.
    """
    numbers: list[Tensor] = []
    first = 0
    for answer in answers:
        shape = answer.values.shape[:-1]
        in_call = torch.zeros(shape, dtype=torch.long)
        sample_axis = next((dim for dim in (axis, 0, 1) if dim < len(shape) and shape[dim] == answer.rows), None)
        if sample_axis is not None:
            in_call = in_call.transpose(sample_axis, -1) + torch.arange(answer.rows)
            in_call = in_call.transpose(sample_axis, -1)
        elif in_call.numel() % answer.rows == 0:  # all tokens of all samples along one axis
            in_call = torch.arange(answer.rows).repeat_interleave(in_call.numel() // answer.rows)
        numbers.append(in_call.flatten() + first)
        first += int(in_call.max()) + 1
    return torch.cat(numbers)


def best_recipe(losses: Mapping[str, Tensor], floor: Tensor | None = None, inputs_of: Tensor | None = None) -> str:
    """Return the recipe with the smallest mean loss among "none" and those that gain more than chance may explain.

    Args:
        losses: recipe -> all losses, in the same order.
        floor: losses of the original itself, the smallest possible; None for no minimum gain.
        inputs_of: for each loss the number of its input; None if each belongs to another input.
    """
    return _best(losses, helpful(losses, floor, partial(chance_gain, inputs_of=inputs_of)))


def best_on_chips(losses: Mapping[str, Tensor], floor: Tensor, inputs_of: Tensor) -> str:
    """Return the recipe for static weights, whose noise all inputs of a chip have in common; as `best_recipe`.

    Args:
        losses: recipe -> losses [chips, all], in the same order.
        floor: losses [all] of the original itself.
        inputs_of: [all] the number of the input of each loss.
    """

    def chance(gain: Tensor) -> float:
        return math.hypot(chance_gain(gain.mean(dim=0), inputs_of), chance_gain(gain.mean(dim=1), None))

    return _best(losses, helpful(losses, floor, chance))


def helpful(losses: Mapping[str, Tensor], floor: Tensor | None, chance: Callable[[Tensor], float]) -> list[str]:
    """Return "none" and the recipes that gain more than chance may explain; see `best_recipe`.

    Args:
        losses: recipe -> all losses, in the same order.
        floor: losses of the original itself, the smallest possible; None for no minimum gain.
        chance: the gain that chance may explain, for the gains in all losses.
    """
    found = ["none"]
    least = 0.0 if floor is None else LEAST_GAIN * float((losses["none"] - floor).mean())
    for recipe, loss in losses.items():
        gain = losses["none"] - loss
        if float(gain.mean()) > max(chance(gain), least, 0.0):
            found.append(recipe)
    return found


def _best(losses: Mapping[str, Tensor], recipes: Sequence[str]) -> str:
    """Return the one of these recipes with the smallest mean loss."""
    return min(recipes, key=lambda recipe: float(losses[recipe].mean()))


def chance_gain(gain: Tensor, inputs_of: Tensor | None) -> float:
    """Return the mean gain that chance may explain; infinite for a single input.

    Args:
        gain: losses without a recipe minus those with it.
        inputs_of: for each the number of its input; None if each belongs to another input.
    """
    if inputs_of is not None:
        inputs_of = inputs_of.to(gain.device)
        counts = inputs_of.bincount().to(gain.dtype)
        gain = torch.zeros_like(counts).index_add(0, inputs_of, gain) / counts
    n = len(gain)
    return student_errors(STANDARD_ERRORS, n) * float(gain.std()) / n**0.5 if n > 1 else float("inf")
