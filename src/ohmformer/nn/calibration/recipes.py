"""What can be done for K and V, with every number of it chosen for the model and the noise at hand.

A recipe sets the conditioning and the clip of each operand so that the error expected of it
(`ohmformer.nn.calibration.expected_error`) is smallest; nothing is drawn, and no labels are needed. Recipes are a
family: one from elsewhere is tried where `calibrate` is given its name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import ClassVar, Literal

import torch

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip
from ohmformer.nn.calibration.expected_error import expected_error, moments
from ohmformer.nn.calibration.fit import fit
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.quantities import Fraction
from ohmformer.registry import Family, named, register

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


class Recipe(Family):
    """How the conditioning and the clip of an operand are chosen. A kind says `set_up`."""

    family: ClassVar[str] = "recipe"

    kind: str

    @abstractmethod
    def set_up(self, operand: KVOperand) -> None:
        """Set the conditioning and the clip of an operand that has watched the calibration inputs; it has neither yet.

        What may be used: `operand.watched`, `operand.array`, `operand.axis`; `fitted`, `widen` and `expected_error`.
        The range of a causal operand has to be fixed by `widen` after its conditioning is set.

        Args:
            operand: whose `condition(...)` is called and whose `clip` is set.
        """


@register
class Unprotected(Recipe):
    """K and V as they come."""

    kind: Literal["none"] = "none"

    def set_up(self, operand: KVOperand) -> None:
        """The range alone."""
        widen(operand)


@register
class Clipped(Recipe):
    """For each head the clip, or none, with the smallest expected error."""

    kind: Literal["clip"] = "clip"
    variance: Fraction = NOISE
    """Weight of the variance of write noise."""

    def set_up(self, operand: KVOperand) -> None:
        """A clip for each head."""
        widen(operand)
        operand.clip = best_clips(operand, self.variance)


@register
class FirmlyClipped(Clipped):
    """The same where the mean square itself counts."""

    kind: Literal["firm clip"] = "firm clip"  # type: ignore[assignment]
    variance: Fraction = FIRM


class Conditioned(Recipe):
    """Features in another basis, with the range and the radix of the smallest expected error."""

    basis: ClassVar[Literal["hadamard", "balanced"]]

    def set_up(self, operand: KVOperand) -> None:
        """A conditioning."""
        operand.condition(best_conditioner(operand, self.basis))
        widen(operand)


@register
class Rotated(Conditioned):
    """Rotated by a Hadamard matrix."""

    basis = "hadamard"

    kind: Literal["hadamard"] = "hadamard"


@register
class Balanced(Conditioned):
    """The basis with the smallest product of the power that is written and that of noise that is read."""

    basis = "balanced"

    kind: Literal["balanced"] = "balanced"


def recipe_of(recipe: Recipe | str) -> Recipe:
    """A recipe, or the one of this name with what it takes by default.

    Raises:
        BadInput: there is none, or it cannot do without numbers that have to be given.
    """
    if isinstance(recipe, Recipe):
        return recipe
    found: Recipe = named(Recipe, recipe, "recipe")()
    return found


def apply(recipe: Recipe | str, operand: KVOperand) -> None:
    """Set the conditioning and the clip of an operand that has watched the calibration inputs.

    Raises:
        BadInput: the recipe sets something that is no clip.
    """
    chosen = recipe_of(recipe)
    operand.condition(None)
    operand.clip = "none"
    chosen.set_up(operand)
    clips = operand.clip if isinstance(operand.clip, tuple) else (operand.clip,)
    if not all(isinstance(clip, KVClip) or clip == "none" for clip in clips):
        raise BadInput(f"{type(chosen).__name__}.set_up: the clip of {operand.name} is {operand.clip!r}; set a KVClip")


def widen(operand: KVOperand) -> None:
    """Fix the range of a causal operand to that of what it watched."""
    if operand.causal:
        operand.w_range = None
        for seen in operand.watched:
            operand.observe_range(seen.tokens, seen.unpadding)


def candidates(array: Crossbar, alphas: Sequence[float] = ALPHAS, betas: Sequence[float] = BETAS) -> list[KVClip]:
    """The grid of clips that leave something to write (beta r > 1), the gentlest first: least cut, least shifted."""
    grid = [KVClip(alpha=alpha, beta=beta) for beta, alpha in product(sorted(betas, reverse=True), sorted(alphas))]
    return [clip for clip in grid if clip.fits(array)] if array.encoding == "differential" else []


def best_clips(operand: KVOperand, noise: float) -> Clip | tuple[Clip, ...]:
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


def best_conditioner(operand: KVOperand, basis: Literal["hadamard", "balanced"]) -> Conditioner:
    """The conditioning in a basis with the smallest expected error over ranges and radixs; the first of equals."""
    found: tuple[float, Conditioner] | None = None
    start = fitted(operand, Conditioning(mean=True, basis=basis, scale="token", unbiased=True))
    for base, share in product(slice_bases(operand.plain), RANGES):
        tried = start.changed(range=share, radix=base)
        operand.condition(tried)
        widen(operand)
        error = float(expected_error(operand, operand.watched, noise=NOISE).sum())
        if found is None or error < found[0]:
            found = error, tried
    assert found is not None
    return found[1]


def fitted(operand: KVOperand, spec: Conditioning) -> Conditioner:
    """A conditioning with what it needs to know of the tokens that an operand watched."""
    how = {"center": spec.mean, "fixed_mean": operand.causal}
    seen = moments(operand.watched, operand.axis, **how)
    return fit(spec, operand.axis, seen, fixed_mean=operand.causal)


def slice_bases(array: Crossbar) -> list[int | None]:
    """What a slice may count more than the one below: as the array has it, or less, down to all slices alike."""
    if array.encoding != "differential" or array.bits == array.bits_per_cell:
        return [None]
    return [None, *range((array.radix or 1 << array.bits_per_cell) - 1, 0, -1)]
