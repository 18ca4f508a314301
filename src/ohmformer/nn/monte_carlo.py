"""Monte Carlo evaluation: one model on many chips, with the mean, its interval and the value of every chip."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ohmformer.errors import BadInput, check_type, one_line
from ohmformer.nn.convert.handle import check_seed, crossbars, set_chip
from ohmformer.nn.shared.state import State
from ohmformer.quantities import whole_number
from ohmformer.stats.intervals import Floats, Summary, mean_summary, value_interval
from ohmformer.terminal.progress import bar
from ohmformer.wording import with_article

MOST_CHIPS = 1_000_000


class Interrupted(UserWarning):
    """Ctrl-C came before all chips were evaluated, so the statistics cover only some of them."""


class UnknownInterval(UserWarning):
    """The scores do not show how much chips or samples vary, so the bounds of the interval are NaN."""


@dataclass(frozen=True)
class Stats:
    """Statistics of a model over chips and samples, as `monte_carlo` returns them.

    Attributes:
        mean: mean score over all chips and samples, or the metric that `summarize` computed from the scores.
        ci95: 95 % confidence interval of that mean, over chips and samples (over samples alone for one chip). Both
            bounds are NaN, with a warning, where scores do not show how much chips or samples vary: a single sample,
            two samples that agree (unless scores are 0 or 1), or one number each from two equal chips. One number from
            one chip has NaN for both bounds without a warning.
        chips: the mean or value of every chip, in order.
        samples: number of scores per chip; None if `evaluate` returned one number.
        interrupted: True if Ctrl-C came before all chips were evaluated.
        scores: all scores [C, N]; None if `evaluate` returned one number.
        jackknife_means: as in `stats.intervals.Summary`.
    """

    mean: float
    ci95: tuple[float, float]
    chips: tuple[float, ...]
    samples: int | None
    interrupted: bool = False
    scores: Floats | None = field(default=None, repr=False, compare=False)
    jackknife_means: tuple[float, ...] = field(default=(), repr=False, compare=False)


def monte_carlo(
    model: nn.Module,
    evaluate: Callable[[nn.Module], ArrayLike],
    *,
    chips: int = 20,
    seed: int | None = None,
    progress: bool = True,
    summarize: Callable[[Floats], Summary] = mean_summary,
    partial: bool = True,
) -> Stats:
    """Evaluate a converted model on chips 0..chips-1, each with its own write noise and faults.

    Afterward the model has its former chip and seed again. After Ctrl-C the statistics cover the chips that were
    evaluated, unless `partial` is False. All threads share the chip of a model, so other threads cannot call the model
    meanwhile; give each thread a copy (`copy.deepcopy`).

    Args:
        model: a converted model.
        evaluate: function of the model that returns scores [N], one per sample (such as 0 or 1), or a single number: an
            array, a tensor of any type on any device, or a list.
        chips: number of chips C.
        seed: root of all noise; None takes the seed of the model.
        progress: show a bar on standard error if that is a terminal.
        summarize: function of the scores [C, N] that returns mean, interval and the value of every chip. The default
            takes plain means; for a metric such as a correlation or a perplexity, pass the `summarize` of the task.
        partial: return statistics of the chips so far after Ctrl-C; False to let Ctrl-C end the call.

    Raises:
        BadInput: chips or seed is out of range; `evaluate` returns something else, or another number of scores for
            another chip, or changes the chip; `summarize` returns something else; or another thread calls the model or
            changes its settings.
        KeyboardInterrupt: Ctrl-C came before the first chip was evaluated, or `partial` is False.
    """
    check_type("monte_carlo", "evaluate", evaluate, Callable, "a function of the model that returns scores [N]")
    check_type("monte_carlo", "summarize", summarize, Callable, "a function such as task.summarize")
    check_type("monte_carlo", "progress", progress, bool, "True or False")
    check_type("monte_carlo", "partial", partial, bool, "True or False")
    chips = _count(chips)
    state = crossbars(model).state
    seed = state.seed if seed is None else check_seed(seed)
    by_chip: list[Floats] = []
    with state.changing("monte_carlo"), bar("chips", chips, show=progress) as shown:
        before = state.chip, state.seed
        try:
            for chip in range(chips):
                set_chip(model, chip, seed=seed)
                returned = evaluate(model)
                _check_chip(state, chip, seed)
                by_chip.append(_scores(returned, by_chip))
                shown.advance()
        except KeyboardInterrupt:
            if not by_chip or not partial:
                raise
            warnings.warn(f"interrupted: statistics of {len(by_chip)} of {chips} chips", Interrupted, stacklevel=2)
        finally:
            state.chip, state.seed = before
    stats = _stats(by_chip, summarize, interrupted=len(by_chip) < chips)
    if np.isnan(stats.ci95).any() and (stats.samples, len(by_chip)) != (None, 1):  # one number alone: as expected
        warnings.warn(_too_few(stats), UnknownInterval, stacklevel=2)
    return stats


def _too_few(stats: Stats) -> str:
    """What is too small for an interval, and the remedy."""
    counts = f"chips = {len(stats.chips)}, scores per chip = {stats.samples or 1}"
    remedy = "take more chips" if stats.samples is None else "score more samples, on more chips"
    return f"{counts}: too few to show how much scores vary, so ci95 is NaN; {remedy}"


def _check_chip(state: State, chip: int, seed: int) -> None:
    """Refuse an evaluation after which the model has another chip or seed.

    Raises:
        BadInput: it has.
    """
    if (state.chip, state.seed) != (chip, seed):
        raise BadInput(
            f"evaluate changed the chip of the model from {chip} to {state.chip}, or its seed, so chips would not be "
            "independent; leave set_chip out of it, since monte_carlo chooses the chip"
        )


def _count(chips: object) -> int:
    """Return the number of chips as an int.

    Raises:
        BadInput: it is not a whole number from 1 to `MOST_CHIPS`.
    """
    number = whole_number(chips)
    if not 1 <= number <= MOST_CHIPS:
        raise BadInput(f"chips = {one_line(chips)}: must be a whole number from 1 to {MOST_CHIPS:,}")
    return number


def _scores(returned: object, before: list[Floats]) -> Floats:
    """Return the scores of one chip as an array, [N] or of no axis; `before` are those of the chips before it.

    Raises:
        BadInput: they are not finite numbers, or not as many as before.
    """
    scores = _numbers(returned)
    if scores.ndim > 1 or scores.size == 0:
        raise BadInput(f"evaluate returned an array {list(scores.shape)}; return scores [N] or one number")
    if before and scores.shape != before[0].shape:
        counts = f"{list(before[0].shape)}, then {list(scores.shape)}"
        raise BadInput(f"evaluate returned {counts} scores; score the same samples each time")
    if not np.isfinite(scores).all():
        raise BadInput("evaluate returned NaN or infinity; check weights, inputs and hardware")
    return scores


def _numbers(returned: object) -> Floats:
    """Return numbers, lists of them, arrays or tensors (of any type and device, with gradient or not) as an array.

    Raises:
        BadInput: they are not real numbers.
    """
    if returned is None:
        raise BadInput("evaluate returned None; end it with `return` and the scores [N], or one number")
    try:
        values = np.asarray([_plain(v) for v in returned] if isinstance(returned, (list, tuple)) else _plain(returned))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        what = with_article(type(returned).__name__)
        raise BadInput(f"evaluate returned {what}; return real scores [N] or one number")
    return values.astype(np.float64)


def _plain(value: object) -> object:
    """Return a tensor as an array of a type that NumPy has, and anything else unchanged.

    Raises:
        BadInput: a masked array hides some values.
    """
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise BadInput("evaluate returned a masked array; return the scores that count, without a mask")
        return value.data
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def _stats(by_chip: list[Floats], summarize: Callable[[Floats], Summary], *, interrupted: bool) -> Stats:
    scores = np.stack(by_chip)
    if scores.ndim == 1:
        return Stats(float(scores.mean()), value_interval(scores), tuple(scores.tolist()), None, interrupted)
    summary = summarize(scores)
    returned = "what summarize returned"
    remedy = "ohmformer.Summary(mean, ci95, chips), as task.summarize does"
    check_type("monte_carlo", returned, summary, Summary, remedy)
    if len(summary.chips) != len(scores) or not np.isfinite([summary.mean, *summary.chips]).all():
        raise BadInput(
            f"monte_carlo: summarize returned a mean of {summary.mean} and {len(summary.chips)} values of "
            f"{len(scores)} chips; return a finite mean and one finite value per chip"
        )
    return Stats(
        summary.mean, summary.ci95, summary.chips, scores.shape[1], interrupted, scores, summary.jackknife_means
    )
