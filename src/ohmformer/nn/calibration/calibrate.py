"""Choose the clip or conditioning of K and V for one model and its hardware, on calibration inputs without labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ohmformer.array import writing
from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.array.peripherals.spec import draws_for_reads, mismatched
from ohmformer.capture.inputs import Inputs, batches, call, size, take
from ohmformer.device import noise
from ohmformer.errors import BadInput, check_type, given, shown, suggest
from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.calibration_inputs import first_inputs, input_batches
from ohmformer.nn.calibration.comparison import Answer, answer_of, best_recipe, input_numbers, losses_of
from ohmformer.nn.calibration.recipes import Recipe, recipe_of
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Crossbars, check_seed, crossbars
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.clipping import plain_clip
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.streams import samples

CHIP = -1
"""The chip of calibration, which is not one of the chips 0, 1, ... of `monte_carlo`."""

OBSERVED = 16
"""Largest number of inputs whose tokens are observed to set up recipes; recipes are compared on all inputs."""

REMEDIES: Mapping[str, tuple[str, ...]] = {
    "clip": ("none", "clip", "firm clip"),
    "auto": ("none", "clip", "firm clip", "hadamard", "balanced"),
}
"""Remedy -> its recipes, the cheapest first. Recipes of other packages are tried only by name, so that no result
depends on what is installed."""

Remedy = str | Recipe | Sequence[str | Recipe]
"""A key of `REMEDIES`, a recipe or its name, or several of these."""


class SingleInput(UserWarning):
    """`calibrate` had a single input, which does not show how much chance matters, so it chose to do nothing."""


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`.

    Attributes:
        recipe: name of the best recipe; "none" if no recipe helps.
        losses: recipe -> mean loss of the model's answers against those of the original; "none" alone without noise.
        clips: operand -> its clip, or one for each of its heads.
        kv: operand -> its conditioning.
    """

    recipe: str
    losses: dict[str, float]
    clips: dict[str, Clip | tuple[Clip, ...]]
    kv: dict[str, Conditioning]

    def canonical(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        clips = {name: plain_clip(clip) for name, clip in self.clips.items()}
        kv = {name: spec.canonical() for name, spec in self.kv.items()}
        return {"recipe": self.recipe, "losses": dict(self.losses), "clips": clips, "kv": kv}


def calibrate(
    model: nn.Module, inputs: Inputs, *, remedy: Remedy = "auto", batch: int = 100, seed: int | None = None
) -> Calibration:
    """Protect K and V of a converted model by the best of several recipes, and return the choice.

    First each recipe is set up for every operand by the error that closed forms expect. Then the whole model runs with
    each recipe, all with the same noise, and the recipe with the smallest loss against the answers of the original is
    kept. The loss is the cross-entropy of class probabilities for a model with logits, and the relative squared
    difference of outputs for others. A recipe is kept only if it is better than doing nothing by more than chance:
    `STANDARD_ERRORS` standard errors of the difference over inputs. Tokens of one input share their noise, so their
    mean counts as one difference. For a single input nothing is done, with a warning.

    Args:
        model: a converted model in evaluation mode; it is changed.
        inputs: inputs of N samples of a calibration set, never of the test set, without labels: a tensor, an array, a
            mapping or a tuple of arguments, or the `calibration` of a task. Or several of these, for example texts of
            different lengths: a list, a data loader, or a generator such as `(x for x, _ in loader)`.
        remedy: "clip" for ClipFormer's clip with thresholds for each head, "auto" for the best of all recipes of this
            package; or recipes to choose from beside doing nothing, as names or objects.
        batch: number of samples per call.
        seed: root of all noise; None takes the seed of the model.

    Raises:
        BadInput: the model was not converted; there are no inputs, or they leave an operand unused; its cells have no
            closed form (offset encoding, drift); batch is not a whole number of 1 or more; or another thread calls the
            model or changes its settings.
    """
    handle = crossbars(model)
    tried = _recipes(remedy)
    parts = input_batches(inputs, handle.sample)
    operands = protectable_operands(handle)
    _check_arrays(operands)
    if all(is_noiseless(operand) for operand in operands):
        tried = {"none": tried["none"]}
    seed = handle.state.seed if seed is None else check_seed(seed)
    with _on_calibration_chip(handle, seed), _undone_on_failure(operands):
        reference = _answers(model, handle, parts, batch, "bypass")
        _answers(model, handle, first_inputs(parts, OBSERVED), batch, "observe tokens")
        _check_observations(operands)
        losses: dict[str, Tensor] = {}
        settings: dict[str, dict[str, _Setting]] = {}
        for name, recipe in tried.items():
            settings[name] = {}
            for operand in operands:
                recipes.apply(recipe, operand)
                settings[name][operand.name] = _Setting.of(operand)
            calibrate_ranges(model)
            losses[name] = losses_of(reference, _answers(model, handle, parts, batch, "run"))
        inputs_of = input_numbers(reference, handle.axis)
        best = best_recipe(losses, losses_of(reference, reference), inputs_of)
        for operand in operands:
            settings[best][operand.name].apply_to(operand)
            operand.watched.clear()
        calibrate_ranges(model)
    warn_of_unseen(model, handle.operands, stacklevel=2)
    _warn_of_single_input(tried, inputs_of)
    return _calibration(best, losses, settings[best])


def _warn_of_single_input(tried: Mapping[str, Recipe], inputs_of: Tensor) -> None:
    """Warn the caller of `calibrate` if several recipes were compared on a single input."""
    if len(tried) > 1 and int(inputs_of.max()) == 0:
        warnings.warn(
            "calibrate compared recipes on a single input, or on a single call whose answers are not one per input, "
            "which does not show how much chance matters, so K and V stay unprotected; give more inputs or a smaller "
            "batch, or set a clip or conditioning by set_clip or set_kv",
            SingleInput,
            stacklevel=3,
        )


def _calibration(best: str, losses: Mapping[str, Tensor], settings: Mapping[str, _Setting]) -> Calibration:
    """Return the result for the best recipe with its settings by operand."""
    clips = {name: setting.clip for name, setting in settings.items() if setting.clip != "none"}
    kv = {name: setting.conditioner.spec for name, setting in settings.items() if setting.conditioner is not None}
    return Calibration(best, {recipe: float(loss.mean()) for recipe, loss in losses.items()}, clips, kv)


def is_noiseless(operand: KVOperand) -> bool:
    """True if cells hold and return exactly the values that are written, so that there is nothing to protect."""
    array, cell = operand.array, operand.array.cell
    exact = writing.exact(operand.plain) and noise.exact_reads(cell) and not writing.has_faults(array)
    return exact and not draws_for_reads(array) and not mismatched(array)


@contextmanager
def _undone_on_failure(operands: list[KVOperand]) -> Iterator[None]:
    """Context after which operands have their former settings again if it fails.

    Raises:
        BadInput: the model cannot be called with the inputs.
    """
    before = {operand.name: (_Setting.of(operand), operand.x_range) for operand in operands}
    try:
        yield
    except Exception as error:
        for operand in operands:
            setting, x_range = before[operand.name]
            setting.apply_to(operand)
            operand.x_range = x_range
            operand.watched.clear()
        if isinstance(error, BadInput):
            raise
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise BadInput(
            f"the model fails on the calibration inputs ({reason}); give inputs of the type and width of the sample of "
            "its conversion, and batches without labels, such as (x for x, _ in loader)"
        ) from error


def set_kv(model: nn.Module, spec: Conditioning | None) -> None:
    """Set one conditioning for all K and V on memristive cells, fitted to the sample of the conversion.

    Args:
        model: a converted model; it is changed.
        spec: the conditioning; None for no conditioning.

    Raises:
        BadInput: the model was not converted, its arrays cannot have this conditioning, or another thread calls the
            model or changes its settings.
    """
    handle = crossbars(model)
    remedy = "Conditioning(mean=True, basis='hadamard') for all K and V, or None"
    check_type("set_kv", "spec", spec, (Conditioning, type(None)), remedy)
    with handle.state.changing("set_kv", unfinished=True):
        _condition(model, handle, spec)
    warn_of_unseen(model, handle.operands, stacklevel=2)


def _condition(model: nn.Module, handle: Crossbars, spec: Conditioning | None) -> None:
    """Set the conditioning, fitted to observations of the sample, and calibrate all ranges anew."""
    operands, fitted = protectable_operands(handle), {}
    if spec is not None:
        for other in handle.operands:
            if isinstance(other, KVOperand) and other.memristive and other.plain_clip == "model":
                spec.check_tokens(other.name, causal=other.causal, holds_queries=other.write == "left")
        for operand in operands:
            operand.watched.clear()
        with torch.no_grad(), named_rows(handle.sample, handle.axis), handle.state.set_mode("observe tokens"):
            call(model, handle.sample)
        with _undone_on_failure(operands):
            _check_observations(operands)
            fitted = {op.name: recipes.fitted(op, spec) for op in operands}
    for operand in operands:
        operand.condition(fitted.get(operand.name))
        operand.watched.clear()
    calibrate_ranges(model)


def _recipes(remedy: Remedy) -> dict[str, Recipe]:
    """Return the recipes of a remedy by name, with doing nothing first.

    Raises:
        BadInput: the remedy or a recipe is unknown, or two recipes have one name.
    """
    if isinstance(remedy, str) and remedy in REMEDIES:
        return {name: recipe_of(name) for name in REMEDIES[remedy]}
    choices = remedy if isinstance(remedy, Sequence) and not isinstance(remedy, str) else (remedy,)
    recipes_by_name = {"none": recipe_of("none")}
    for choice in choices:
        recipe = choice if isinstance(choice, Recipe) else _named_recipe(choice)
        if recipe.kind in recipes_by_name and recipe.kind != "none":
            raise BadInput(f"remedy: names {recipe.kind!r} twice; leave one of them out")
        recipes_by_name[recipe.kind] = recipe
    return recipes_by_name


def _named_recipe(name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        BadInput: there is none.
    """
    if not isinstance(name, str):
        raise BadInput(f"calibrate: remedy is {given(name)}; give the name of a recipe, such as 'auto' or 'clip'")
    if name not in Recipe.kinds():
        raise BadInput(
            f"remedy = {shown(name)}: {suggest(shown(name), list(dict.fromkeys([*REMEDIES, *Recipe.kinds()])))}"
        )
    return recipe_of(name)


def protectable_operands(handle: Crossbars) -> list[KVOperand]:
    """Return the operands K and V that are written into memristive cells and whose clip no rule sets."""
    operands = [op for op in handle.operands if isinstance(op, KVOperand)]
    return [operand for operand in operands if operand.conditionable and operand.plain_clip == "model"]


@dataclass(frozen=True)
class _Setting:
    """Conditioning, clip and range of an operand, as a recipe set them."""

    conditioner: Conditioner | None
    clip: Any
    w_range: Tensor | None

    @staticmethod
    def of(operand: KVOperand) -> _Setting:
        """Return the setting of an operand."""
        return _Setting(operand.conditioner, operand.clip, operand.w_range)

    def apply_to(self, operand: KVOperand) -> None:
        """Set an operand in this way."""
        operand.condition(self.conditioner)
        operand.clip, operand.w_range = self.clip, self.w_range


@contextmanager
def _on_calibration_chip(handle: Crossbars, seed: int) -> Iterator[None]:
    """Context in which the model is on the chip of calibration; afterward it has its former chip and seed."""
    state = handle.state
    with state.changing("calibrate", unfinished=True):
        before = state.seed, state.chip
        state.seed, state.chip = seed, CHIP
        try:
            yield
        finally:
            state.seed, state.chip = before


def _check_arrays(operands: list[KVOperand]) -> None:
    """Refuse arrays whose cells have no closed form.

    Raises:
        BadInput: an array is refused.
    """
    for operand in operands:
        if reason := no_closed_form(operand.array):
            raise BadInput(f"{operand.name} cannot be calibrated: {reason}")


def _check_observations(operands: list[KVOperand]) -> None:
    """Refuse operands that were not observed, or with another number of heads in each use.

    Raises:
        BadInput: an operand is refused.
    """
    missed = next((operand.name for operand in operands if not operand.watched), None)
    if missed is not None:
        raise BadInput(f"{missed} is not used on the calibration inputs; give others, or keep it digital by a rule")
    heads = {op.name: sorted({observation.tokens.shape[1] for observation in op.watched}) for op in operands}
    if varying := [name for name, counts in heads.items() if len(counts) > 1]:
        counts = " and ".join(map(str, heads[varying[0]]))
        rules = ", ".join(f"{name!r}: Rule(clip='none')" for name in varying)
        raise BadInput(
            f"{varying[0]} holds {counts} matrices for a sample in different uses, such as along axes of different "
            f"length, so one conditioning does not fit; leave it out with rules={{{rules}}}"
        )


def _answers(
    model: nn.Module,
    handle: Crossbars,
    parts: list[Inputs],
    batch: int,
    mode: Literal["bypass", "run", "observe tokens"],
) -> list[Answer]:
    """Run the model on all parts of the inputs in this mode, and return its answer to each batch."""
    answers: list[Answer] = []
    first = 0
    with torch.no_grad(), handle.state.set_mode(mode):
        for inputs in parts:
            for rows in batches(inputs, batch):
                with samples(f"calibration {first + n}" for n in range(rows.start, rows.stop)):
                    answers.append(answer_of(call(model, take(inputs, rows)), rows.stop - rows.start))
            first += size(inputs)
    return answers
