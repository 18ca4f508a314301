"""Choosing what is done for K and V on one piece of hardware, on unlabeled calibration inputs.

N inputs, K classes: logits[N, K] or [N, T, K].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ohmformer.array import writing
from ohmformer.array.code_moments import no_closed_form
from ohmformer.capture.inputs import Inputs, batches, call, size, take
from ohmformer.capture.sample_batch import arrays_as_tensors
from ohmformer.device import faults, noise
from ohmformer.errors import BadInput, suggest
from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.comparison import Answer, answer_of, best_recipe, input_numbers, losses_of
from ohmformer.nn.calibration.recipes import Recipe, recipe_of
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Crossbars, check_seed, crossbars
from ohmformer.nn.convert.self_check import named_rows
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.clipping import plain_clip
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.streams import samples

CHIP = -1
"""The chip that is calibrated on: none of 0, 1, ... that `monte_carlo` evaluates."""

WATCHED = 16
"""At most so many inputs tell what tokens are like; all inputs are used to compare recipes."""

REMEDIES: Mapping[str, tuple[str, ...]] = {
    "clip": ("none", "clip", "firm clip"),
    "auto": ("none", "clip", "firm clip", "hadamard", "balanced"),
}
"""What may be chosen from, the cheapest first. Recipes from elsewhere are tried only by name, so that what is
installed decides no result."""

Remedy = str | Recipe | Sequence[str | Recipe]


class SingleInput(UserWarning):
    """`calibrate` saw one input only, which does not show what chance does, so it chose nothing."""


@dataclass(frozen=True)
class Calibration:
    """What was chosen.

    Attributes:
        recipe: the best of those that were tried; "none" where nothing helps.
        losses: recipe -> how far the model's answers are from those of the original; only "none" without noise.
        clips: operand -> its clip, or those of its heads.
        kv: operand -> its conditioning.
    """

    recipe: str
    losses: dict[str, float]
    clips: dict[str, Clip | tuple[Clip, ...]]
    kv: dict[str, Conditioning]

    def canonical(self) -> dict[str, Any]:
        """As plain JSON values."""
        clips = {name: plain_clip(clip) for name, clip in self.clips.items()}
        kv = {name: spec.canonical() for name, spec in self.kv.items()}
        return {"recipe": self.recipe, "losses": dict(self.losses), "clips": clips, "kv": kv}


def calibrate(
    model: nn.Module, inputs: Inputs, *, remedy: Remedy = "auto", batch: int = 100, seed: int | None = None
) -> Calibration:
    """Protect K and V of a converted model against the noise of its hardware, as well as is known here.

    Each recipe is set up for every layer by the error that is expected of it in closed form. Then the whole model is
    run with each, all with the same noise, and that is kept with which it speaks most like the original: the measure
    is the cross-entropy of class probabilities where a model gives logits, and the relative square of the difference
    of what it returns elsewhere. Something is done at all only where that is better than nothing by more than chance,
    `CERTAIN` standard errors of the difference over inputs; so on these inputs it is never worse. Tokens of one input
    share their noise and count as one difference, their mean. A single input does not show what chance does. So nothing
    is done then, with a warning.

    Args:
        model: what `convert` made, in evaluation mode.
        inputs: of N samples from a calibration set, never from the test set; no labels are needed.
        remedy: "clip" for ClipFormer's clip with thresholds by head, "auto" for the best of all that is known here; or
            recipes to choose from, by name or as they are, besides doing nothing.
        batch: inputs per call.
        seed: root of all noise; None takes the model's own.

    Raises:
        BadInput: the model was not converted, there are no inputs, they leave an operand unused, what its cells hold
            has no closed form (offset encoding, drift), or batch is no whole number of 1 or more; or another thread is
            inside a call of the model, or changes its settings.
    """
    found = crossbars(model)
    tried = _recipes(remedy)
    inputs = arrays_as_tensors(inputs)
    if size(inputs) == 0:
        raise BadInput("calibrate needs at least one input")
    operands = protectable(found)
    _check_arrays(operands)
    if all(noiseless(operand) for operand in operands):
        tried = {"none": tried["none"]}
    seed = found.state.seed if seed is None else check_seed(seed)
    with _calibrating(found, seed), _unharmed(operands):
        truth = _answers(model, found, inputs, batch, "bypass")
        _answers(model, found, take(inputs, slice(0, WATCHED)), batch, "observe tokens")
        _check_watched(operands)
        losses: dict[str, Tensor] = {}
        kept: dict[str, dict[str, _Setting]] = {}
        for name, recipe in tried.items():
            kept[name] = {}
            for operand in operands:
                recipes.apply(recipe, operand)
                kept[name][operand.name] = _Setting.of(operand)
            calibrate_ranges(model)
            losses[name] = losses_of(truth, _answers(model, found, inputs, batch, "run"))
        inputs_of = input_numbers(truth, found.axis)
        best = best_recipe(losses, losses_of(truth, truth), inputs_of)
        for operand in operands:
            kept[best][operand.name].put(operand)
            operand.watched.clear()
        calibrate_ranges(model)
    warn_of_unseen(model, found.operands, stacklevel=2)
    _warn_of_single(tried, inputs_of)
    return _calibration(best, losses, kept[best])


def _warn_of_single(tried: Mapping[str, Recipe], inputs_of: Tensor) -> None:
    """Warn the caller of `calibrate` if there was a choice, and only one input to choose by."""
    if len(tried) > 1 and int(inputs_of.max()) == 0:
        warnings.warn(
            "calibrate compared recipes on a single input, or a single call whose answers are not one per input, which "
            "does not show what chance does, so nothing was done for K and V; give more inputs or a smaller batch, or "
            "choose by set_clip or set_kv",
            SingleInput,
            stacklevel=3,
        )


def _calibration(best: str, losses: Mapping[str, Tensor], settings: Mapping[str, _Setting]) -> Calibration:
    clips = {name: one.clip for name, one in settings.items() if one.clip != "none"}
    kv = {name: one.conditioner.spec for name, one in settings.items() if one.conditioner is not None}
    return Calibration(best, {recipe: float(each.mean()) for recipe, each in losses.items()}, clips, kv)


def noiseless(operand: KVOperand) -> bool:
    """Whether cells hold and give just what is written, so that there is nothing to protect."""
    cell = operand.array.cell
    return writing.exact(operand.plain) and noise.exact_reads(cell) and not faults.faulty(cell)


@contextmanager
def _unharmed(operands: list[KVOperand]) -> Iterator[None]:
    """Operands are as they were where something fails inside.

    Raises:
        BadInput: the model cannot be called with the inputs.
    """
    before = {operand.name: (_Setting.of(operand), operand.x_range) for operand in operands}
    try:
        yield
    except Exception as error:
        for operand in operands:
            setting, x_range = before[operand.name]
            setting.put(operand)
            operand.x_range = x_range
            operand.watched.clear()
        if isinstance(error, BadInput):
            raise
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise BadInput(
            f"the model fails on the calibration inputs ({why}); give inputs of the type and width of the sample that "
            "it was converted with"
        ) from error


def set_kv(model: nn.Module, spec: Conditioning | None) -> None:
    """The same conditioning for all K and V on memristive cells, fitted to the batch that `convert` was given; or none.

    Raises:
        BadInput: the model was not converted, its arrays cannot be used so, or another thread is inside a call of it,
            or changes its settings.
    """
    found = crossbars(model)
    with found.state.changing("set_kv", unfinished=True):
        _condition(model, found, spec)
    warn_of_unseen(model, found.operands, stacklevel=2)


def _condition(model: nn.Module, found: Crossbars, spec: Conditioning | None) -> None:
    operands = protectable(found)
    if spec is not None:
        for operand in operands:
            operand.watched.clear()
        with torch.no_grad(), named_rows(found.sample, found.axis), found.state.set_mode("observe tokens"):
            call(model, found.sample)
        with _unharmed(operands):
            _check_watched(operands)
    for operand in operands:
        operand.condition(None if spec is None else recipes.fitted(operand, spec))
        operand.watched.clear()
    calibrate_ranges(model)


def _recipes(remedy: Remedy) -> dict[str, Recipe]:
    """The recipes to try by name, doing nothing first.

    Raises:
        BadInput: there is no such remedy or recipe, or two have one name.
    """
    if isinstance(remedy, str) and remedy in REMEDIES:
        return {name: recipe_of(name) for name in REMEDIES[remedy]}
    call_info = remedy if isinstance(remedy, Sequence) and not isinstance(remedy, str) else (remedy,)
    found = {"none": recipe_of("none")}
    for each in call_info:
        if not isinstance(each, Recipe):
            each = recipe_of(each) if each in Recipe.kinds() else _unknown(each)
        if each.kind in found and each.kind != "none":
            raise BadInput(f"remedy: names {each.kind!r} twice; leave one of them out")
        found[each.kind] = each
    return found


def _unknown(remedy: object) -> Recipe:
    raise BadInput(f"remedy = {remedy!r}: {suggest(str(remedy), list(dict.fromkeys([*REMEDIES, *Recipe.kinds()])))}")


def protectable(found: Crossbars) -> list[KVOperand]:
    """K and V that are written into memristive cells, and for which no rule has a clip of its own."""
    operands = [op for op in found.operands if isinstance(op, KVOperand)]
    return [operand for operand in operands if operand.conditionable and operand.plain_clip == "model"]


@dataclass(frozen=True)
class _Setting:
    """What a recipe made of an operand."""

    conditioner: Conditioner | None
    clip: Any
    w_range: Tensor | None

    @staticmethod
    def of(operand: KVOperand) -> _Setting:
        return _Setting(operand.conditioner, operand.clip, operand.w_range)

    def put(self, operand: KVOperand) -> None:
        operand.condition(self.conditioner)
        operand.clip, operand.w_range = self.clip, self.w_range


@contextmanager
def _calibrating(found: Crossbars, seed: int) -> Iterator[None]:
    """Noise inside is that of the chip for calibration; the chip of before is put back."""
    state = found.state
    with state.changing("calibrate", unfinished=True):
        before = state.seed, state.chip
        state.seed, state.chip = seed, CHIP
        try:
            yield
        finally:
            state.seed, state.chip = before


def _check_arrays(operands: list[KVOperand]) -> None:
    """Refuse arrays for whose cells there is no closed form."""
    for operand in operands:
        if why := no_closed_form(operand.array):
            raise BadInput(f"{operand.name} cannot be calibrated: {why}")


def _check_watched(operands: list[KVOperand]) -> None:
    missed = next((operand.name for operand in operands if not operand.watched), None)
    if missed is not None:
        raise BadInput(f"{missed} is not used on the calibration inputs; give others, or keep it digital by a rule")
    for operand in operands:
        rows = sorted({seen.tokens.shape[1] for seen in operand.watched})
        if len(rows) > 1:
            counts = " and ".join(map(str, rows))
            raise BadInput(
                f"{operand.name} holds {counts} matrices for a sample in different uses, such as along axes of "
                "different length, so one conditioning does not fit; leave it out with "
                f"rules={{{operand.name!r}: Rule(clip='none')}}"
            )


def _answers(
    model: nn.Module, found: Crossbars, inputs: Inputs, batch: int, mode: Literal["bypass", "run", "observe tokens"]
) -> list[Answer]:
    """What the model says, batch by batch."""
    said: list[Answer] = []
    with torch.no_grad(), found.state.set_mode(mode):
        for rows in batches(inputs, batch):
            with samples(f"calibration {n}" for n in range(rows.start, rows.stop)):
                said.append(answer_of(call(model, take(inputs, rows)), rows.stop - rows.start))
    return said
