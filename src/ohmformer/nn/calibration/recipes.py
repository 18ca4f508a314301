"""Recipes to protect K and V: each chooses clip and conditioning of an operand for the model and its noise.

A recipe takes the numbers with the smallest expected error (`ohmformer.nn.calibration.expected_error`), which needs
neither random draws nor labels. Recipes are a family: `calibrate` tries a recipe of another package by its name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip
from ohmformer.nn.calibration.expected_error import expected_error, moments
from ohmformer.nn.calibration.fit import fit
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.nn.operands.observation import first_samples
from ohmformer.quantities import Fraction
from ohmformer.registry import Family, called, named, register

ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Grid of the clip's lower threshold."""
BETAS = (1.0, 0.5, 0.25, 0.125)
"""Grid of the clip's ceiling."""
NOISE = 0.25
"""Weight of the variance of write noise beside the squares of systematic errors. Random errors average out on the way
through a model, and systematic ones add up. With weight 1 clips come out too strong on the calibration images of the
bundled model; 0.1 to 0.5 are about as good there as this value."""

FIRM = 1.0
"""The same weight for strong noise, where the mean square itself counts, as on the calibration photographs of ViT-S at
γσ = 1. For conditionings the weight makes no difference there."""

RANGES = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Grid of a conditioning's range, as shares of the largest magnitude."""
RESIDUAL_RANGES = (1.0, 0.9, 0.75, 0.6, 1.3, 1.6, 2.0)
"""The same for residual writing. Above 1, the largest values too leave room for corrections by later cells."""


class Recipe(Family):
    """A way to choose the conditioning and the clip of an operand. A kind defines `set_up`."""

    family: ClassVar[str] = "recipe"

    kind: str

    @property
    def label(self) -> str:
        """The name of the recipe in results: its kind, and what else sets it apart from others of that kind."""
        return self.kind

    @abstractmethod
    def set_up(self, operand: KVOperand) -> None:
        """Set the conditioning and the clip of an operand that has observed the calibration inputs.

        A kind may use `operand.watched`, `operand.array` and `operand.axis`, and the functions `fitted`,
        `fit_range_to_observed` and `expected_error`. After the conditioning, it must set the range of
        a causal operand by `fit_range_to_observed`.

        Args:
            operand: K or V, without clip and conditioning; call its `condition(...)` and set its `clip`.
        """


@register
class Unprotected(Recipe):
    """Neither clip nor conditioning."""

    kind: Literal["none"] = "none"

    def set_up(self, operand: KVOperand) -> None:
        """Set the range alone."""
        fit_range_to_observed(operand)


@register
class Clipped(Recipe):
    """For each head the clip with the smallest expected error, or no clip."""

    kind: Literal["clip"] = "clip"
    variance: Fraction = NOISE
    """Weight of the variance of write noise."""

    def set_up(self, operand: KVOperand) -> None:
        """Set a clip for each head."""
        fit_range_to_observed(operand)
        operand.clip = best_clips(operand, self.variance)


@register
class FirmlyClipped(Clipped):
    """As `clip`, for strong noise: the variance of write noise has its full weight."""

    kind: Literal["firm clip"] = "firm clip"  # type: ignore[assignment]
    variance: Fraction = FIRM


class Conditioned(Recipe):
    """A conditioning in another basis, with the range and the radix of the smallest expected error."""

    basis: ClassVar[Literal["hadamard", "balanced"]]

    def set_up(self, operand: KVOperand) -> None:
        """Set a conditioning."""
        unbiased = operand.plain.residual is None
        start = Conditioning(mean=True, basis=self.basis, scale="token", unbiased=unbiased)
        operand.condition(best_conditioner(operand, start))
        fit_range_to_observed(operand)


@register
class Rotated(Conditioned):
    """Features rotated by a Hadamard matrix."""

    basis = "hadamard"

    kind: Literal["hadamard"] = "hadamard"


@register
class Balanced(Conditioned):
    """Features in the basis in which the power of written tokens times the power of inputs is smallest."""

    basis = "balanced"

    kind: Literal["balanced"] = "balanced"


def recipe_of(recipe: Recipe | str) -> Recipe:
    """Return a recipe unchanged, or the recipe of this name with its default fields.

    Raises:
        BadInput: there is no such recipe, or it has fields without a default.
    """
    if isinstance(recipe, Recipe):
        return recipe
    default: Recipe = named(Recipe, recipe, "recipe")()
    return default


def apply(recipe: Recipe | str, operand: KVOperand) -> None:
    """Let a recipe set the conditioning and the clip of an operand that has observed the calibration inputs.

    Raises:
        BadInput: the recipe sets something else than a clip, or a recipe of another package raises an exception.
    """
    chosen = recipe_of(recipe)
    operand.condition(None)
    operand.clip = "none"
    called(chosen, "set_up", operand)
    clips = operand.clip if isinstance(operand.clip, tuple) else (operand.clip,)
    if not all(isinstance(clip, KVClip) or clip == "none" for clip in clips):
        raise BadInput(f"{type(chosen).__name__}.set_up: the clip of {operand.name} is {operand.clip!r}; set a KVClip")


def fit_range_to_observed(operand: KVOperand) -> None:
    """Set the range of a causal operand to that of its observed tokens, without its digital first tokens.

    Operands that are not causal are left alone: their range follows from the tokens of each call.
    """
    if operand.causal:
        operand.w_range = None
        first = 0 if operand.conditioner is None else operand.conditioner.spec.first_tokens
        for observation in (each.after(first) for each in operand.watched):
            operand.observe_range(observation.tokens, observation.unpadding)


def candidate_clips(array: Crossbar, alphas: Sequence[float] = ALPHAS, betas: Sequence[float] = BETAS) -> list[KVClip]:
    """Return the clips of a grid that leave values to write (beta r > 1), from the weakest to the strongest."""
    grid = [KVClip(alpha=alpha, beta=beta) for beta, alpha in product(sorted(betas, reverse=True), sorted(alphas))]
    return [clip for clip in grid if clip.fits(array)] if array.encoding == "differential" else []


def best_clips(operand: KVOperand, noise: float) -> Clip | tuple[Clip, ...]:
    """Return for each head the clip with the smallest expected error, or "none"; the first of equals.

    Args:
        operand: K or V; its clip is changed by the search.
        noise: weight of the variance of write noise.
    """
    clips: list[Clip] = ["none", *candidate_clips(operand.array)[1:]]
    errors, watched = [], first_samples(operand.watched)
    for clip in clips:
        operand.clip = clip
        errors.append(expected_error(operand, watched, noise=noise))
    chosen = torch.stack(errors).argmin(dim=0).tolist()
    return tuple(clips[index] for index in chosen)


def best_conditioner(operand: KVOperand, start: Conditioning) -> Conditioner:
    """Return the conditioning with the smallest expected error over ranges and radices; the first of equals.

    Args:
        operand: K or V; its conditioning and range are changed by the search.
        start: the conditioning but for its range and its radix.

    Raises:
        BadInput: the array supports the conditioning with no radix.
    """
    best: tuple[float, Conditioner] | None = None
    fit_once, supported = fitted(operand, start), supported_radices(operand.plain, start)
    watched = first_samples(operand.watched)
    at_once = start.residual is None and operand.plain.residual is None
    if not supported:
        start.on(operand.plain)  # says why
    for radix, share in product(supported, RANGES if at_once else RESIDUAL_RANGES):
        candidate = fit_once.changed(range=share, radix=radix)
        operand.condition(candidate)
        fit_range_to_observed(operand)
        error = float(expected_error(operand, watched, noise=NOISE).sum())
        if best is None or error < best[0]:
            best = error, candidate
    assert best is not None
    return best[1]


def fitted(operand: KVOperand, spec: Conditioning) -> Conditioner:
    """Return a conditioning that is fitted to the observed inputs and tokens of an operand.

    Raises:
        BadInput: the operand cannot have its digital tokens, or has observed no others.
    """
    spec.check_tokens(operand.name, causal=operand.causal)
    longest = max(max(each.unpadding.lengths) if each.unpadding else each.tokens.shape[2] for each in operand.watched)
    if spec.most_digital_tokens >= longest:
        raise BadInput(
            f"kv: {spec.most_digital_tokens} digital tokens (first_tokens + last_tokens), but {operand.name} has at "
            f"most {longest} tokens on the calibration inputs, so no range of its cells is known; give longer inputs, "
            "or fewer digital tokens"
        )
    watched = [observation.after(spec.first_tokens) for observation in operand.watched]
    observed = moments(watched, operand.axis, center=spec.mean, fixed_mean=operand.causal)
    return fit(spec, operand.axis, observed, fixed_mean=operand.causal)


def radices(array: Crossbar) -> list[int | None]:
    """Return the radices to try: None, the array's own, and then each smaller one down to 1."""
    if array.encoding != "differential" or array.slices() == array.redundancy:
        return [None]
    return [None, *range(array.base - 1, 0, -1)]


def supported_radices(array: Crossbar, spec: Conditioning) -> list[int | None]:
    """Return those of `radices` with which an array supports a conditioning."""
    return [radix for radix in radices(array) if _supports(array, spec.model_copy(update={"radix": radix}))]


def _supports(array: Crossbar, spec: Conditioning) -> bool:
    try:
        spec.on(array)
    except BadInput:
        return False
    return True


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "widen":
            raise AttributeError(f"{__name__}.widen is now {__name__}.fit_range_to_observed; rename it")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
