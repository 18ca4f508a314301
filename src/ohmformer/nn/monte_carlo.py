"""The same model on many chips: mean, interval, and every chip's value."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import track
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.nn.convert.handle import set_chip
from ohmformer.stats.intervals import Floats, Summary, mean_summary, value_interval


class Interrupted(UserWarning):
    """Ctrl-C came before all chips were done; the statistics are of those that were."""


@dataclass(frozen=True)
class Stats:
    """What `monte_carlo` found.

    Attributes:
        mean: over all chips and samples, or what `summarise` made of them.
        ci95: 95 % interval of that mean, over chips and samples (over samples only for one chip; NaN for one chip
            without samples).
        chips: every chip's mean or value, in order.
        samples: scores per chip; None where `evaluate` gave one number.
        interrupted: Ctrl-C came before all chips were done.
        scores: [C, N] all scores; None where `evaluate` gave one number.
    """

    mean: float
    ci95: tuple[float, float]
    chips: tuple[float, ...]
    samples: int | None
    interrupted: bool = False
    scores: Floats | None = field(default=None, repr=False, compare=False)


def monte_carlo(
    model: nn.Module,
    evaluate: Callable[[nn.Module], ArrayLike],
    *,
    chips: int = 20,
    seed: int = 0,
    progress: bool = True,
    summarise: Callable[[Floats], Summary] = mean_summary,
) -> Stats:
    """Evaluate a converted model on chips 0..chips-1, each with its own write noise and faults.

    Ctrl-C keeps the chips that are done, if there are any; the model stays on the last chip that was tried.

    Args:
        model: what `convert` returned.
        evaluate: model -> scores [N], one per sample (such as 0 or 1), or a single number.
        chips: how many.
        seed: root of all noise.
        progress: show a bar on standard error where that is a terminal.
        summarise: scores [C, N] to mean, interval and every chip's value, where that is no plain mean; the `summarise`
            of a task whose metric is a correlation or a perplexity.

    Raises:
        BadInput: chips is below 1, or `evaluate` returns something else, or another number of samples each time.
        KeyboardInterrupt: Ctrl-C before the first chip was done.
    """
    if chips < 1:
        raise BadInput(f"chips = {chips}: must be 1 or more")
    done: list[Floats] = []
    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)
    try:
        for chip in track(range(chips), "chips", console=console, transient=True, disable=hidden):
            set_chip(model, chip, seed=seed)
            done.append(_scores(evaluate(model), done))
    except KeyboardInterrupt:
        if not done:
            raise
        warnings.warn(f"interrupted: statistics of {len(done)} of {chips} chips", Interrupted, stacklevel=2)
    return _stats(done, summarise, interrupted=len(done) < chips)


def _scores(found: ArrayLike, before: list[Floats]) -> Floats:
    scores = np.asarray(found, dtype=np.float64)
    if scores.ndim > 1 or scores.size == 0:
        raise BadInput(f"evaluate returned an array {list(scores.shape)}; return scores [N] or one number")
    if before and scores.shape != before[0].shape:
        counts = f"{list(before[0].shape)}, then {list(scores.shape)}"
        raise BadInput(f"evaluate returned {counts} scores; score the same samples each time")
    if not np.isfinite(scores).all():
        raise BadInput("evaluate returned NaN or infinity; check weights, inputs and hardware")
    return scores


def _stats(done: list[Floats], summarise: Callable[[Floats], Summary], *, interrupted: bool) -> Stats:
    scores = np.stack(done)
    if scores.ndim == 1:
        return Stats(float(scores.mean()), value_interval(scores), tuple(scores.tolist()), None, interrupted)
    found = summarise(scores)
    return Stats(found.mean, found.ci95, found.chips, scores.shape[1], interrupted, scores)
