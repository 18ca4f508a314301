"""What can be done for K and V, with every number of it chosen for the model and the noise at hand.

A recipe sets the conditioning and the clip of each operand so that the error expected of it (`ohmformer.nn.calibration.expected_error`)
is smallest; nothing is drawn, and no labels are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch

from ohmformer.array.spec import Crossbar
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip
from ohmformer.nn.calibration.expected_error import expected_error, moments
from ohmformer.nn.calibration.fit import fit
from ohmformer.nn.operands.kv import DynamicOperand
from ohmformer.nn.operands.kv_transform import Conditioner

Recipe = Literal["none", "clip", "firm clip", "hadamard", "balanced"]

ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
BETAS = (1.0, 0.5, 0.25, 0.125)
NOISE = 0.25
"""Weight of the variance of write noise beside squares of errors that come again with every token, layer and image:
what is drawn anew evens out on its way through a model, what is falsified adds up. With 1 saturation is mostly chosen
too strong: found on the calibration images of the bundled model, where 0.1 to 0.5 are about as good."""

FIRM = 1.0
"""The same where noise is so strong that the mean square itself counts, as on the calibration photographs of ViT-S at
γσ = 1. For conditionings it makes no difference there."""

RANGES = (1.0, 0.9, 0.8, 0.7, 0.6)


def apply(recipe: Recipe, operand: DynamicOperand) -> None:
    """Set the conditioning and the clip of an operand that has watched the calibration inputs."""
    operand.condition(None)
    operand.clip = "none"
    match recipe:
        case "none":
            widen(operand)
        case "clip" | "firm clip":
            widen(operand)
            operand.clip = best_clips(operand, NOISE if recipe == "clip" else FIRM)
        case _:
            operand.condition(best_conditioner(operand, recipe))
            widen(operand)


def widen(operand: DynamicOperand) -> None:
    """Fix the range of a causal operand to that of what it watched."""
    if operand.causal:
        operand.w_range = None
        for seen in operand.watched:
            operand.observe_range(seen.tokens, seen.dense)


def candidates(array: Crossbar, alphas: Sequence[float] = ALPHAS, betas: Sequence[float] = BETAS) -> list[KVClip]:
    """The grid of clips that leave something to write (beta r > 1), the gentlest first: least cut, least shifted."""
    grid = [KVClip(alpha=alpha, beta=beta) for beta, alpha in product(sorted(betas, reverse=True), sorted(alphas))]
    return [clip for clip in grid if clip.fits(array)] if array.encoding == "differential" else []


def best_clips(operand: DynamicOperand, noise: float) -> Clip | tuple[Clip, ...]:
    """For each head the clip, or none, with the smallest expected error; the first of equals.

    `noise` is the weight of the variance.
    """
    clips: list[Clip] = ["none", *candidates(operand.array)[1:]]
    errors = []
    for clip in clips:
        operand.clip = clip
        errors.append(expected_error(operand, operand.watched, noise=noise))
    chosen = torch.stack(errors).argmin(dim=0).tolist()
    return tuple(clips[index] for index in chosen)


def best_conditioner(operand: DynamicOperand, basis: Literal["hadamard", "balanced"]) -> Conditioner:
    """The conditioning in a basis with the smallest expected error over ranges and slice bases; the first of equals."""
    found: tuple[float, Conditioner] | None = None
    start = fitted(operand, Conditioning(mean=True, basis=basis, scale="token", unbiased=True))
    for base, share in product(slice_bases(operand.plain), RANGES):
        tried = start.changed(range=share, slice_base=base)
        operand.condition(tried)
        widen(operand)
        error = float(expected_error(operand, operand.watched, noise=NOISE).sum())
        if found is None or error < found[0]:
            found = error, tried
    assert found is not None
    return found[1]


def fitted(operand: DynamicOperand, spec: Conditioning) -> Conditioner:
    """A conditioning with what it needs to know of the tokens that an operand watched."""
    how = {"centre": spec.mean, "fixed_mean": operand.causal}
    seen = moments(operand.watched, operand.axis, **how)
    return fit(spec, operand.axis, seen, fixed_mean=operand.causal)


def slice_bases(array: Crossbar) -> list[int | None]:
    """What a slice may count more than the one below: as the array has it, or less, down to all slices alike."""
    if array.encoding != "differential" or array.bits == array.bits_per_cell:
        return [None]
    return [None, *range((array.slice_base or 1 << array.bits_per_cell) - 1, 0, -1)]
