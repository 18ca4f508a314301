"""Choose the mitigation of K and V, and of static weights, for one model and its hardware, on inputs without labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.array.codes.code_moments import no_closed_form
from ohmformer.capture.inputs import Inputs, call
from ohmformer.errors import BadInput, check_type, given
from ohmformer.mitigation.budget import KVBudget, PriceKV
from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.calibrate_weights import (
    WeightCalibration,
    WeightRemedy,
    choose_weights,
    unprotected,
    weight_recipes,
)
from ohmformer.nn.calibration.calibration_inputs import input_batches
from ohmformer.nn.calibration.candidates import CandidateComparison, TriedCandidates
from ohmformer.nn.calibration.comparison import best_on_chips, input_numbers, losses_of
from ohmformer.nn.calibration.operand_setting import clips_of, conditionings_of
from ohmformer.nn.calibration.recipe_search import RecipeSearch
from ohmformer.nn.calibration.recipes import Recipe
from ohmformer.nn.calibration.remedies import Remedy, recipes_of
from ohmformer.nn.calibration.runs import OBSERVED, Runs, is_noiseless, losses_on_chips, on_calibration_chip
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.handle import Handle, check_seed, crossbars, undone_on_failure
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.clipping import plain_clip
from ohmformer.nn.operands.kv import KVOperand


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
        weights: the choice for static weights; None if they were left alone.
        comparison: all candidates that were compared for the budget, with their costs; None without a budget.
    """

    recipe: str
    losses: dict[str, float]
    clips: dict[str, Clip | tuple[Clip, ...]]
    kv: dict[str, Conditioning]
    weights: WeightCalibration | None = None
    comparison: CandidateComparison | None = None

    def canonical(self) -> dict[str, Any]:
        """Return the result as plain JSON values; `weights` and `comparison` only if there are such."""
        clips = {name: plain_clip(clip) for name, clip in self.clips.items()}
        kv = {name: spec.canonical() for name, spec in self.kv.items()}
        more = {"weights": self.weights, "comparison": self.comparison}
        further = {name: part.canonical() for name, part in more.items() if part is not None}
        return {"recipe": self.recipe, "losses": dict(self.losses), "clips": clips, "kv": kv, **further}


def calibrate(
    model: nn.Module,
    inputs: Inputs,
    *,
    remedy: Remedy | None = "auto",
    weights: WeightRemedy | None = None,
    batch: int = 100,
    seed: int | None = None,
    budget: KVBudget | None = None,
    price: PriceKV | None = None,
) -> Calibration:
    """Protect K and V of a converted model, and its static weights, by the best of several recipes; return the choice.

    First each recipe is set up for every operand by the error that closed forms expect. Then the whole model runs with
    each recipe, all with the same noise, and the recipe with the smallest loss against the answers of the original is
    kept. The loss is the cross-entropy of class probabilities for a model with logits, and the relative squared
    difference of outputs for others. A recipe is kept only if it is better than doing nothing by more than chance:
    `STANDARD_ERRORS` standard errors of the difference over inputs. Tokens of one input share their noise, so their
    mean counts as one difference. For a single input nothing is done, with a warning.

    With a budget, residual writing and redundancy are tried too (`recipes_within`). Of the candidates within the budget
    the best one is chosen, or the cheapest one that is as good. The result holds all candidates (`comparison`).

    Static weights are chosen first, with K and V exact, and K and V then with these weights. At the end, all of it must
    be better than doing nothing, or it is undone.

    Args:
        model: a converted model in evaluation mode; it is changed.
        inputs: inputs of N samples of a calibration set, never of the test set, without labels: a tensor, an array, a
            mapping or a tuple of arguments, or the `calibration` of a task. Or several of these, for example texts of
            different lengths: a list, a data loader, or a generator such as `(x for x, _ in loader)`.
        remedy: "clip" for ClipFormer's clip with thresholds for each head, "auto" for the best of all recipes of this
            package; recipes to choose from beside doing nothing, as names or objects; or None to leave K and V alone.
        weights: "auto" for the best of all recipes for static weights, the names of some of them, or None to leave the
            weights alone.
        batch: number of samples per call.
        seed: root of all noise; None takes the seed of the model.
        budget: what the protection of K and V may cost; None for the recipes of `remedy`, whatever they cost.
        price: the cost of a pass for given clips and conditionings, such as `of.kv_prices(...)`; a limit needs it.

    Raises:
        BadInput: the model was not converted; there are no inputs, or they leave an operand unused; its cells have no
            closed form (offset encoding, drift of K and V); batch is not a whole number of 1 or more; a budget has a
            limit and there is no price; or another thread calls the model or changes its settings.
    """
    handle = crossbars(model)
    _check_budget(budget, price)
    tried, tried_weights = {} if remedy is None else recipes_of(remedy, budget), weight_recipes(weights)
    parts = input_batches(inputs, handle.sample)
    operands = protectable_operands(handle) if tried else []
    _check_arrays(operands)
    if all(is_noiseless(operand.plain) for operand in operands):
        tried = {"none": tried["none"]} if tried else {}
    seed = handle.state.seed if seed is None else check_seed(seed)
    with on_calibration_chip(handle, seed), _failure_explained(), undone_on_failure(handle):
        search = RecipeSearch(Runs(model, handle, parts, batch), operands, tried, budget, price)
        result, inputs_of = _choose_all(search, tried_weights) if len(tried_weights) > 1 else _choose_kv(search)
    warn_of_unseen(model, handle.operands, stacklevel=2)
    _warn_of_single_input(tried, tried_weights, inputs_of)
    return result


def _check_budget(budget: KVBudget | None, price: PriceKV | None) -> None:
    """Refuse a budget that nobody can check.

    Raises:
        BadInput: a limit is given and no price, a price and no budget, or one of them is something else.
    """
    check_type("calibrate", "budget", budget, (KVBudget, type(None)), "KVBudget(latency='+10 %'), or None")
    if price is not None and not callable(price):
        raise BadInput(f"calibrate: price is {given(price)}; give a function such as of.kv_prices(workload, hardware)")
    if price is not None and budget is None:
        raise BadInput("calibrate: price decides nothing without a budget; give budget=KVBudget(...) too")
    if price is None and budget is not None and budget.limits:
        name, limit = next(iter(budget.limits.items()))
        raise BadInput(
            f"budget.{name} = {limit:g}: there is no accelerator whose cost it limits; give "
            "price=of.kv_prices(workload, accelerator), or no limit"
        )


def _choose_all(search: RecipeSearch, weights: Sequence[str]) -> tuple[Calibration, Tensor]:
    """Choose static weights and then K and V; if all of it is not better than nothing, K and V alone.

    Returns:
        As `_choose_kv`.
    """
    runs = search.runs
    for operand in search.operands:
        operand.condition(None)
        operand.clip = "none"
    unprotected(runs)
    before = losses_on_chips(runs, "run")
    chosen = choose_weights(runs, weights)
    result, inputs_of = _choose_kv(search)
    if chosen.recipe != "none" and any(isinstance(operand, KVOperand) for operand in runs.handle.operands):
        both = {"none": before, "all": losses_on_chips(runs, "run")}
        if best_on_chips(both, losses_of(runs.reference, runs.reference), inputs_of) == "none":
            unprotected(runs)
            chosen = replace(chosen, recipe="none", weights={})
            result, inputs_of = _choose_kv(search)
    return replace(result, weights=chosen), inputs_of


def _choose_kv(search: RecipeSearch) -> tuple[Calibration, Tensor]:
    """Choose clips and conditionings of K and V, and set them.

    Returns:
        The choice; and for each loss the number of its input.
    """
    runs = search.runs
    inputs_of = input_numbers(runs.reference, runs.handle.axis)
    if not search.tried:
        return Calibration("none", {}, {}, {}), inputs_of
    runs.run("observe tokens", OBSERVED)
    _check_observations(search.operands)
    best = search.choose(inputs_of)
    return _calibration(best, search.compared, search.comparison(best)), inputs_of


def _warn_of_single_input(tried: Mapping[str, Recipe], weights: Sequence[str], inputs_of: Tensor) -> None:
    """Warn the caller of `calibrate` if several recipes were compared on a single input."""
    if max(len(tried), len(weights)) > 1 and int(inputs_of.max()) == 0:
        what = "K and V" if len(weights) == 1 else "weights" if len(tried) <= 1 else "weights, K and V"
        warnings.warn(
            "calibrate compared recipes on a single input, or on a single call whose answers are not one per input, "
            f"which does not show how much chance matters, so {what} stay unprotected; give more inputs or a smaller "
            "batch, or set a clip, a conditioning or a mitigation by set_clip, set_kv or set_weights",
            SingleInput,
            stacklevel=3,
        )


def _calibration(best: str, compared: TriedCandidates, comparison: CandidateComparison | None) -> Calibration:
    """Return the result for the best recipe."""
    settings = compared.settings[best]
    losses = {recipe: float(loss.mean()) for recipe, loss in compared.losses.items()}
    return Calibration(best, losses, clips_of(settings), conditionings_of(settings), comparison=comparison)


@contextmanager
def _failure_explained() -> Iterator[None]:
    """Context in which a model that fails on calibration inputs is refused in one line.

    Raises:
        BadInput: the model cannot be called with the inputs.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
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
    with handle.state.changing("set_kv", unfinished=True), undone_on_failure(handle):
        _condition(model, handle, spec)
    warn_of_unseen(model, handle.operands, stacklevel=2)


def _condition(model: nn.Module, handle: Handle, spec: Conditioning | None) -> None:
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
        with _failure_explained():
            _check_observations(operands)
            fitted = {op.name: recipes.fitted(op, spec) for op in operands}
    for operand in operands:
        operand.condition(fitted.get(operand.name))
        operand.watched.clear()
    calibrate_ranges(model)


def protectable_operands(handle: Handle) -> list[KVOperand]:
    """Return the operands K and V that are written into memristive cells and whose clip no rule sets."""
    operands = [op for op in handle.operands if isinstance(op, KVOperand)]
    return [operand for operand in operands if operand.conditionable and operand.plain_clip == "model"]


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
