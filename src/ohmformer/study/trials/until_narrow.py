"""Chips and samples of a point, as many as the asked interval needs, and the share of good chips."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.monte_carlo import Stats, monte_carlo
from ohmformer.nn.shared.state import State
from ohmformer.stats.intervals import Floats
from ohmformer.stats.narrowing import LOOKS, Trials, grown, is_narrow, share_interval
from ohmformer.study.results.trials import ChipYield, Narrowed
from ohmformer.study.spec import Settings
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task


def until_narrow(settings: Settings, task: Task, converted: nn.Module) -> tuple[Stats, Task, Narrowed]:
    """Try chips and samples until the interval is as narrow as the study asks, or there are no more.

    Every chip has the noise of its own number, so a point that ends with C chips and N samples has the bits of a study
    of C chips whose `task.limit` is N.

    Returns:
        The statistics, the samples that were scored, and whether their interval is narrow.

    Raises:
        BadInput: scores cannot be had or summarized.
        KeyboardInterrupt: Ctrl-C came before all chips were done.
    """
    trials, state = settings.trials, crossbars(converted).state
    assert trials.ci_halfwidth is not None
    most = Trials(trials.most, len(task))
    now: Trials | None = Trials(trials.chips, trials.samples or len(task))
    known: dict[int, Floats] = {}
    narrow = before = 0
    while now is not None:
        if now.samples != before:
            part, before = task.first(now.samples), now.samples
            known.clear()
        score = partial(_known_scores, known=known, state=state, task=part, batch=settings.simulation.batch)
        stats = monte_carlo(
            converted,
            score,
            chips=now.chips,
            seed=settings.seed,
            progress=False,
            summarize=part.summarize,
            partial=False,
        )
        narrow = narrow + 1 if is_narrow(stats.ci95, trials.ci_halfwidth) else 0
        now = None if narrow >= LOOKS else grown(now, most, stats.ci95, stats.chips)
    found = Narrowed(asked=trials.ci_halfwidth, reached=narrow > 0, most_chips=most.chips, most_samples=most.samples)
    return stats, part, found


def _known_scores(model: nn.Module, *, known: dict[int, Floats], state: State, task: Task, batch: int) -> Floats:
    """The scores of the present chip; `known` has those of chips that were tried before, and gets those of others."""
    if state.chip not in known:
        known[state.chip] = scores(model, task=task, batch=batch)
    return known[state.chip]


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
