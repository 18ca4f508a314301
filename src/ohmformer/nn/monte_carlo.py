"""The same model on many chips: mean, interval, and every chip's value."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from ohmformer.errors import BadInput, one_line
from ohmformer.nn.convert.handle import check_seed, crossbars, set_chip
from ohmformer.quantities import whole_number
from ohmformer.stats.intervals import Floats, Summary, mean_summary, value_interval

MOST_CHIPS = 1_000_000


class Interrupted(UserWarning):
    """Ctrl-C came before all chips were done; the statistics are of those that were."""


@dataclass(frozen=True)
class Stats:
    """What `monte_carlo` found.

    Attributes:
        mean: over all chips and samples, or what `summarize` made of them.
        ci95: 95 % interval of that mean, over chips and samples (over samples only for one chip; NaN for one chip
            without samples).
        chips: every chip's mean or value, in order.
        samples: scores per chip; None where `evaluate` gave one number.
        interrupted: Ctrl-C came before all chips were done.
        scores: [C, N] all scores; None where `evaluate` gave one number.
        left_out: as in `stats.intervals.Summary`.
    """

    mean: float
    ci95: tuple[float, float]
    chips: tuple[float, ...]
    samples: int | None
    interrupted: bool = False
    scores: Floats | None = field(default=None, repr=False, compare=False)
    left_out: tuple[float, ...] = field(default=(), repr=False, compare=False)


def monte_carlo(
    model: nn.Module,
    evaluate: Callable[[nn.Module], ArrayLike],
    *,
    chips: int = 20,
    seed: int | None = None,
    progress: bool = True,
    summarize: Callable[[Floats], Summary] = mean_summary,
) -> Stats:
    """Evaluate a converted model on chips 0..chips-1, each with its own write noise and faults.

    Afterward the model is on the chip, and has the seed, that it had before. Ctrl-C keeps the chips that are done, if
    there are any. The chip is that of the model, for all threads. So other threads cannot call it meanwhile; give each
    thread a copy (`copy.deepcopy`).

    Args:
        model: what `convert` returned.
        evaluate: model -> scores [N], one per sample (such as 0 or 1), or a single number; an array, a tensor of any
            type and device, or a list.
        chips: how many.
        seed: root of all noise; None takes the model's own, as `convert` was given it.
        progress: show a bar on standard error where that is a terminal.
        summarize: scores [C, N] to mean, interval and every chip's value, where that is no plain mean; the `summarize`
            of a task whose metric is a correlation or a perplexity.

    Returns:
        Statistics of all scores.

    Raises:
        BadInput: chips or seed is no number of its kind, or `evaluate` returns something else, or another number of
            samples each time; or another thread is inside a call of the model, or changes its settings.
        KeyboardInterrupt: Ctrl-C before the first chip was done.
    """
    chips = _count(chips)
    state = crossbars(model).state
    seed = state.seed if seed is None else check_seed(seed)
    done: list[Floats] = []
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)
    with state.changing("monte_carlo"):
        before = state.chip, state.seed
        try:
            for chip in track(range(chips), "chips", console=console, transient=True, disable=hidden):
                set_chip(model, chip, seed=seed)
                done.append(_scores(evaluate(model), done))
        except KeyboardInterrupt:
            if not done:
                raise
            warnings.warn(f"interrupted: statistics of {len(done)} of {chips} chips", Interrupted, stacklevel=2)
        finally:
            state.chip, state.seed = before
    return _stats(done, summarize, interrupted=len(done) < chips)


def _count(chips: object) -> int:
    """The number of chips, of any type of whole number."""
    number = whole_number(chips)
    if not 1 <= number <= MOST_CHIPS:
        raise BadInput(f"chips = {one_line(chips)}: must be a whole number from 1 to {MOST_CHIPS:,}")
    return number


def _scores(found: object, before: list[Floats]) -> Floats:
    scores = _numbers(found)
    if scores.ndim > 1 or scores.size == 0:
        raise BadInput(f"evaluate returned an array {list(scores.shape)}; return scores [N] or one number")
    if before and scores.shape != before[0].shape:
        counts = f"{list(before[0].shape)}, then {list(scores.shape)}"
        raise BadInput(f"evaluate returned {counts} scores; score the same samples each time")
    if not np.isfinite(scores).all():
        raise BadInput("evaluate returned NaN or infinity; check weights, inputs and hardware")
    return scores


def _numbers(found: object) -> Floats:
    """What `evaluate` returned, as an array: tensors of any type, on any device, with or without gradient."""
    if found is None:
        raise BadInput("evaluate returned None; end it with `return` and the scores [N], or one number")
    try:
        values = np.asarray([_plain(each) for each in found] if isinstance(found, (list, tuple)) else _plain(found))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise BadInput(f"evaluate returned a {type(found).__name__}; return real scores [N] or one number")
    return values.astype(np.float64)


def _plain(value: object) -> object:
    """A tensor as an array, of a type that numpy has; anything else as it is."""
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise BadInput("evaluate returned a masked array; return the scores that count, without a mask")
        return value.data
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def _stats(done: list[Floats], summarize: Callable[[Floats], Summary], *, interrupted: bool) -> Stats:
    scores = np.stack(done)
    if scores.ndim == 1:
        return Stats(float(scores.mean()), value_interval(scores), tuple(scores.tolist()), None, interrupted)
    found = summarize(scores)
    return Stats(found.mean, found.ci95, found.chips, scores.shape[1], interrupted, scores, found.left_out)
