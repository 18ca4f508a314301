"""One point: from settings to numbers. A pure function of picklable input, so it may run in any process."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

from torch import nn

from ohmformer.capture.inputs import take
from ohmformer.errors import BadInput
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.use import check_used
from ohmformer.mitigation.budget import KVBudget, PriceKV
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.nn.calibration.calibrate import Calibration, calibrate, set_kv
from ohmformer.nn.convert.convert import StaysDigital, convert
from ohmformer.nn.convert.handle import capture_table, digital_token_share
from ohmformer.nn.monte_carlo import UnknownInterval, monte_carlo
from ohmformer.stats.intervals import Floats
from ohmformer.study.loaded import all_rules, loaded, one_thread, software_metric
from ohmformer.study.noise_labels import write_noise
from ohmformer.study.results.part import made
from ohmformer.study.results.spec import Accuracy, Capture, Chosen, PointResult
from ohmformer.study.spec import Settings
from ohmformer.study.trials.until_narrow import chip_yield, until_narrow
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task

RANGE_SAMPLES = 100
"""Calibration inputs that fix the ranges of input quantizers and converters."""

REMEDY_SAMPLES = 100
"""Calibration inputs on which clips and conditionings are chosen."""

PROBE_NOTE = "the probe behind the features was fitted on clean training samples and stays digital"


def evaluate_point(settings: Settings, ages: Ages | None = None, price: PriceKV | None = None) -> PointResult:
    """The result of one point: convert the model, calibrate it, try it on chips, and summarize the scores.

    Args:
        settings: of the point.
        ages: times of K and V, if the settings take them from a timeline (see `study.timing.ages`).
        price: what candidates for K and V cost, if the settings have a budget (see `study.pricing`).

    Raises:
        BadInput: the model, the data or the hardware cannot be used, or ages are missing.
        KeyboardInterrupt: Ctrl-C came before all chips were done.
    """
    if settings.timing is not None and ages is None:
        raise BadInput(f"simulation.age = {settings.simulation.age!r}: the ages are missing; run it as a study")
    check_used(settings.hardware, settings.simulation.hours)
    with one_thread():
        model, task = loaded(settings.model, settings.task)
        converted = _converted(settings, model, task, ages)
        calibration = _calibrated(settings, task, converted, price)
        digital_token_share(converted)  # calibration does not count
        return PointResult(
            accuracy=_accuracy(settings, task, converted, calibration),
            capture=Capture(**capture_table(converted).summary()),
            write_noise=write_noise(settings.hardware),
            notes=_notes(settings, task),
        )


def _converted(settings: Settings, model: nn.Module, task: Task, ages: Ages | None) -> nn.Module:
    """A copy of the model on the hardware of the settings, with fixed clips and conditionings set."""
    sample = take(task.calibration, slice(0, RANGE_SAMPLES))
    clip, kv = settings.mitigation.clip, settings.mitigation.kv
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaysDigital)  # the result says what stays digital
        options: dict[str, Any] = {
            "level": settings.simulation.level,
            "kernels": settings.simulation.kernels,
            "rules": all_rules(settings.rules, settings.task),
            "seed": settings.seed,
            "weights": settings.mitigation.fixed_weights,
            "clip": clip if isinstance(clip, KVClip) else None,
            "ages": settings.simulation.age if settings.timing is None else ages,
        }
        converted = convert(model, settings.hardware, sample=sample, **options)
    if isinstance(kv, Conditioning):
        try:
            set_kv(converted, kv)
        except BadInput as error:
            raise BadInput(f"mitigation.{error}" if str(error).startswith("kv") else str(error)) from error
    return converted


def _calibrated(settings: Settings, task: Task, converted: nn.Module, price: PriceKV | None) -> Calibration | None:
    """Choose mitigations of weights, clips and conditionings, and set them; None if the study leaves no choice.

    Raises:
        BadInput: the study has a budget with limits, and there is no price.
    """
    mitigation = settings.mitigation
    remedy = "auto" if mitigation.chooses_kv else "clip" if mitigation.clip == "calibrated" else None
    weights = "auto" if mitigation.weights == "auto" else None
    if remedy is None and weights is None:
        return None
    options: dict[str, Any] = {"batch": settings.simulation.batch, "seed": settings.seed}
    if isinstance(mitigation.kv, KVBudget):
        if price is None and mitigation.kv.limits:
            raise BadInput("mitigation.kv: the prices of its budget are missing; run it as a study")
        options |= {"budget": mitigation.kv, "price": price}
    inputs = take(task.calibration, slice(0, REMEDY_SAMPLES))
    return calibrate(converted, inputs, remedy=remedy, weights=weights, **options)


def _accuracy(settings: Settings, task: Task, converted: nn.Module, calibration: Calibration | None) -> Accuracy:
    """The metric of a point on all chips, with that of the software model beside it.

    Raises:
        BadInput: there are too few scores for an interval.
        KeyboardInterrupt: Ctrl-C came before all chips were done.
    """
    trials, batch, narrowed = settings.trials, settings.simulation.batch, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownInterval)  # refused below
        if trials.ci_halfwidth is None:
            score = partial(scores, task=task, batch=batch)
            options: dict[str, Any] = {"chips": trials.chips, "seed": settings.seed, "summarize": task.summarize}
            stats = monte_carlo(converted, score, progress=False, partial=False, **options)
        else:
            stats, task, narrowed = until_narrow(settings, task, converted)
    choice = settings.task.model_copy(update={"limit": len(task)}) if narrowed else settings.task
    if not all(map(math.isfinite, stats.ci95)):
        raise BadInput(
            f"{task.name}: samples = {stats.samples}, trials.chips = {len(stats.chips)}: too few to show how much "
            f"{task.metric} varies, so it has no 95 % interval; score more samples (task.limit), on more chips"
        )
    return made(
        Accuracy,
        "accuracy.",
        metric=task.metric,
        level=settings.simulation.level,
        kernels=settings.simulation.kernels,
        software=software_metric(settings.model, choice, batch),
        mean=stats.mean,
        ci95=stats.ci95,
        chips=stats.chips,
        samples=stats.samples,
        score_sums=_score_sums(task, stats.scores),
        left_out=stats.jackknife_means or None,
        chosen=Chosen(**calibration.canonical()) if calibration else None,
        digital_token_share=digital_token_share(converted),
        narrowed=narrowed,
        chip_yield=chip_yield(settings, stats.chips),
    )


def _score_sums(task: Task, scores: Floats | None) -> list[Any] | None:
    """Sums over chips of each sample's scores; None for a metric that only all samples together have.

    Args:
        task: whose metric says what the scores are.
        scores: [chips, samples].
    """
    if scores is None or task.metric_kind.counts == "whole":
        return None
    sums = scores.sum(axis=0)
    plain: list[Any] = (sums.astype(int) if task.metric_kind.counts == "hit" else sums).tolist()
    return plain


def _notes(settings: Settings, task: Task) -> tuple[str, ...]:
    """Notes for readers on the task and on a probe."""
    return (*task.notes, *([PROBE_NOTE] if settings.task.probe else []))
