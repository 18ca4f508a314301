"""Chips and samples of a point: a fixed number, or as many as the asked interval needs."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Literal

from torch import nn

from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.monte_carlo import Interrupted, Stats, UnknownInterval, monte_carlo
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.stats.narrowing import LOOKS, Trials, grown, is_narrow, share_interval
from ohmformer.study.results.trials import ChipYield, Narrowed
from ohmformer.study.spec import Settings
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task


def tried(settings: Settings, task: Task, converted: nn.Module) -> tuple[Stats, Task, Narrowed | None]:
    """The statistics of a point, the samples that were scored, and whether their interval is as narrow as asked.

    Every chip has the noise of its own number, so a point that ends with C chips and N samples has the bits of a study
    of C chips whose `task.limit` is N.

    Raises:
        BadInput: scores cannot be had or summarized.
        KeyboardInterrupt: Ctrl-C came before all chips were done.
    """
    trials = settings.trials
    if trials.ci_halfwidth is None:
        return _look(settings, task, converted, trials.chips, {}), task, None
    most = Trials(trials.most, len(task))
    now: Trials | None = Trials(trials.chips, trials.samples or len(task))
    known: dict[int, Floats] = {}
    narrow = before = 0
    while now is not None:
        if now.samples != before:
            part, before = task.first(now.samples), now.samples
            known.clear()
        stats = _look(settings, part, converted, now.chips, known)
        summary = Summary(stats.mean, stats.ci95, stats.chips)
        narrow = narrow + 1 if is_narrow(summary, trials.ci_halfwidth) else 0
        now = None if narrow >= LOOKS else grown(now, most, summary)
    found = Narrowed(asked=trials.ci_halfwidth, reached=narrow > 0, most_chips=most.chips, most_samples=most.samples)
    return stats, part, found


def _look(settings: Settings, task: Task, converted: nn.Module, chips: int, known: dict[int, Floats]) -> Stats:
    """Statistics of the first chips; `known` has the scores of chips tried before, and gets those of others."""
    state = crossbars(converted).state
    score = partial(scores, task=task, batch=settings.simulation.batch)

    def measure(model: nn.Module) -> Floats:
        if state.chip not in known:
            known[state.chip] = score(model)
        return known[state.chip]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Interrupted)
        warnings.simplefilter("ignore", UnknownInterval)  # refused by the caller
        stats = monte_carlo(
            converted, measure, chips=chips, seed=settings.seed, progress=False, summarize=task.summarize
        )
    if stats.interrupted:
        raise KeyboardInterrupt
    return stats


def chip_yield(settings: Settings, chips: tuple[float, ...]) -> ChipYield | None:
    """The share of chips beyond the bound of the study; None if it has no bound."""
    above, below = settings.trials.yield_above, settings.trials.yield_below
    if above is not None:
        good, bound = sum(value > above for value in chips), above
    elif below is not None:
        good, bound = sum(value < below for value in chips), below
    else:
        return None
    side: Literal["above", "below"] = "above" if above is not None else "below"
    return ChipYield(side=side, bound=bound, share=good / len(chips), ci95=share_interval(good, len(chips)))
