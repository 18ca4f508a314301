"""Which recipe is best for K and V: how far the answers of a model are from true ones, and what chance explains of it.

N inputs, K classes: logits[N, K] or [N, T, K].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.nn.convert.self_check import floats
from ohmformer.stats.intervals import student_errors

CERTAIN = 1.0
"""By how many standard errors of the paired difference a recipe must be better than nothing, were the deviation of
differences known: a test that rarely lets chance pass would also forgo what helps a little, for which a hundred inputs
are few. Since the deviation is estimated from the inputs, `student_errors` makes more of it for few: 1.84 for two."""

REAL = 1e-3
"""Which part of the loss through noise a recipe must win back to be worth anything."""


@dataclass(frozen=True)
class Answer:
    """What a model says of the `rows` samples of a call.

    Attributes:
        values: log-probabilities [..., K], or what is returned of each sample [N, .].
        classes: `values` are log-probabilities.
        rows: number of samples N.
    """

    values: Tensor
    classes: bool
    rows: int


def answer_of(output: Any, rows: int) -> Answer:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return Answer(F.log_softmax(logits.double(), dim=-1), True, rows)
    leaves = [leaf.double() for leaf in floats(output)]
    by_sample = [leaf.flatten(1) for leaf in leaves if leaf.dim() > 1 and len(leaf) == rows]
    return Answer(torch.cat(by_sample or [leaf.reshape(1, -1) for leaf in leaves], dim=1), False, rows)


def losses_of(truth: list[Answer], said: list[Answer]) -> Tensor:
    """How far answers are from the true ones: of every sample, or of each of its tokens."""
    return torch.cat([_loss(t, s) for t, s in zip(truth, said, strict=True)])


def _loss(truth: Answer, said: Answer) -> Tensor:
    if truth.classes:
        return -(truth.values.exp() * said.values).sum(dim=-1).flatten()
    error = (truth.values - said.values).square().sum(dim=1)
    return error / truth.values.square().sum(dim=1).clamp(min=1e-300)


def input_numbers(said: list[Answer], axis: int) -> Tensor:
    """For each loss the number of the input that it is of; of the call, where answers are not one or more per input.

    Samples stand along `axis` of the inputs of the model, and where they can along the same axis of what it returns.
    """
    found: list[Tensor] = []
    first = 0
    for each in said:
        shape = each.values.shape[:-1]
        places = torch.zeros(shape, dtype=torch.long)
        along = next((dim for dim in (axis, 0, 1) if dim < len(shape) and shape[dim] == each.rows), None)
        if along is not None:
            places = places.transpose(along, -1) + torch.arange(each.rows)
            places = places.transpose(along, -1)
        elif places.numel() % each.rows == 0:  # all tokens of all samples along one axis
            places = torch.arange(each.rows).repeat_interleave(places.numel() // each.rows)
        found.append(places.flatten() + first)
        first += int(places.max()) + 1
    return torch.cat(found)


def best_recipe(losses: Mapping[str, Tensor], floor: Tensor | None = None, inputs_of: Tensor | None = None) -> str:
    """The recipe with the smallest loss among those that are better than nothing by more than chance, and at all.

    Args:
        losses: recipe -> loss of every answer.
        floor: loss of the original itself, below which nothing can be won.
        inputs_of: for each answer the number of its input; by default each is of another one.
    """
    helping = ["none"]
    worth = 0.0 if floor is None else REAL * float((losses["none"] - floor).mean())
    for recipe, loss in losses.items():
        gain = losses["none"] - loss
        if float(gain.mean()) > max(chance_of(gain, inputs_of), worth, 0.0):
            helping.append(recipe)
    return min(helping, key=lambda recipe: float(losses[recipe].mean()))


def chance_of(gain: Tensor, inputs_of: Tensor | None) -> float:
    """The mean gain that chance may explain; infinite for a single input."""
    if inputs_of is not None:
        inputs_of = inputs_of.to(gain.device)
        counts = inputs_of.bincount().to(gain.dtype)
        gain = torch.zeros_like(counts).index_add(0, inputs_of, gain) / counts
    n = len(gain)
    return student_errors(CERTAIN, n) * float(gain.std()) / n**0.5 if n > 1 else float("inf")
