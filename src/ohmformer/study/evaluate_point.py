"""One point: from settings to numbers. A pure function of picklable input, so it may run in any process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.inputs import call, take
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import OrderedRules, Rule
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.models.load import make_model, model_digest
from ohmformer.models.spec import ModelChoice
from ohmformer.nn.calibration.calibrate import Calibration, Remedy, calibrate, set_kv
from ohmformer.nn.convert.convert import StaysDigital, convert
from ohmformer.nn.convert.handle import capture_table
from ohmformer.nn.monte_carlo import Interrupted, monte_carlo
from ohmformer.stats.intervals import Floats
from ohmformer.study.noise_labels import write_noise
from ohmformer.study.result_key import Identity, digest
from ohmformer.study.spec import Settings
from ohmformer.tasks.head_choice import head_for
from ohmformer.tasks.load import make_task
from ohmformer.tasks.model_outputs import run_model
from ohmformer.tasks.probe import probed
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.task import Task

RANGE_SAMPLES = 100
"""Calibration inputs that fix the ranges of input quantisers and converters."""

IDENTITY_SAMPLES = 4
"""Calibration inputs whose outputs are part of a model's identity."""

IDENTITY_VALUES = 10_000
"""At least so many values of each output are part of it, where there are so many."""

REMEDY_SAMPLES = 100
"""Calibration inputs on which clips and conditionings are chosen."""

PROBE_NOTE = "the probe behind the features was fitted on clean training samples and stays digital"

_body = lru_cache(maxsize=4)(make_model)


@lru_cache(maxsize=4)
def loaded(model: ModelChoice, task: TaskChoice) -> tuple[nn.Module, Task]:
    """A model with the head that the task needs, and the task, prepared for that model."""
    with one_thread():
        found = _body(model, head_for(task))
        data = make_task(task, found)
        return (probed(found, data), data) if task.probe else (found, data)


def _model(settings: Settings) -> nn.Module:
    return loaded(settings.model, settings.task)[0]


def _task(settings: Settings) -> Task:
    return loaded(settings.model, settings.task)[1]


def identify(settings: Settings) -> Identity:
    """Load model and data, and say which they are.

    Raises:
        BadInput: they cannot be loaded, or the clip does not go with the arrays.
    """
    for engine in (settings.hardware.attention.key, settings.hardware.attention.value):
        if isinstance(settings.mitigation.clip, KVClip) and isinstance(engine, CrossbarEngine):
            try:
                settings.mitigation.clip.check(engine.array)
            except BadInput as error:
                raise BadInput(f"mitigation.{error}") from None
    return Identity(model=_model_digest(settings.model, settings.task), task=_task(settings).digest)


def check_identity(settings: Settings, identity: Identity) -> None:
    """Refuse model or data that are others here than those whose digests are in the key.

    Raises:
        BadInput: a function of the user gave something else at this call.
    """
    found = identify(settings)
    for section, source in (("model", settings.model.source), ("task", settings.task.source)):
        if getattr(found, section) != getattr(identity, section):
            raise BadInput(
                f"{section}.source = {source!r}: gives another {section} at each call; load it from a file, or seed "
                "what is random, such as with torch.manual_seed"
            )


@lru_cache(maxsize=4)
def _model_digest(choice: ModelChoice, task_choice: TaskChoice) -> str:
    """Digest of a model and of what it does: its weights and its code do not say all, such as plain attributes."""
    model, task = loaded(choice, task_choice)
    with one_thread(), torch.inference_mode():
        seen = run_model(model, take(task.calibration, slice(0, IDENTITY_SAMPLES)), _said, "calibration samples")
    return digest([model_digest(model), seen])


def _said(model: nn.Module, inputs: Any) -> list[list[float]] | str:
    """Rounded values of what a model says to some inputs.

    Raises:
        BadInput: some are NaN or infinite.
    """
    outputs = call(model, inputs)
    tensors = [_some(leaf).double() for leaf in tree_leaves(_plain(outputs)) if isinstance(leaf, torch.Tensor)]
    if not all(values.isfinite().all() for values in tensors):
        raise BadInput(f"{type(model).__name__}: its outputs are NaN or infinite; check weights and inputs")
    return [values.round(decimals=3).tolist() for values in tensors] or repr(type(outputs))


def _some(values: torch.Tensor) -> torch.Tensor:
    """Values from all over a tensor, so many that no other model has the same."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // IDENTITY_VALUES)]


def _plain(outputs: Any) -> list[Any]:
    """What a model returns, without the class that Hugging Face wraps it in."""
    is_table = hasattr(outputs, "values") and not isinstance(outputs, torch.Tensor)
    return list(outputs.values()) if is_table else [outputs]


def evaluate_point(settings: Settings) -> dict[str, Any]:
    """The numbers of one point, as plain JSON values: `accuracy` as in a results file, and what its reader may ask for.

    `hits[n]` is on how many chips sample n was right, or the sum of its scores, where the metric is a mean of samples;
    `capture` says what ran on crossbars and what stayed digital; `write_noise` is what each role's cells had; `notes`
    is what else a reader must know. Where only all samples together have a value, `left_out[n]` is the mean over chips
    without the n-th part of the samples.

    Raises:
        BadInput: the model, the data or the hardware cannot be used.
    """
    with one_thread():
        task = _task(settings)
        converted = _convert(settings, task)
        chosen = _calibrated(settings, task, converted)
        return {
            "accuracy": _accuracy(settings, task, converted, chosen),
            "capture": capture_table(converted).summary(),
            "write_noise": write_noise(settings.hardware),
            "notes": [*task.notes, *([PROBE_NOTE] if settings.task.probe else [])],
        }


def _accuracy(settings: Settings, task: Task, converted: nn.Module, chosen: Calibration | None) -> dict[str, Any]:
    measure = partial(scores, task=task, batch=settings.simulation.batch)
    trials = {"chips": settings.trials.chips, "seed": settings.seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Interrupted)
        stats = monte_carlo(converted, measure, **trials, progress=False, summarise=task.summarise)
    if stats.interrupted or stats.scores is None:
        raise KeyboardInterrupt
    return {
        "metric": task.metric,
        "level": settings.simulation.level,
        "software": _software(settings.model, settings.task, settings.simulation.batch),
        "mean": stats.mean,
        "ci95": list(stats.ci95),
        "chips": list(stats.chips),
        "samples": stats.samples,
        **_sums(task, stats.scores.sum(axis=0)),
        **({"left_out": list(stats.left_out)} if stats.left_out else {}),
        **({"chosen": chosen.canonical()} if chosen else {}),
    }


def _sums(task: Task, sums: Floats) -> dict[str, list[Any]]:
    """Sums over chips of each sample's scores, for metrics that are means of samples."""
    match task.metric_kind.counts:
        case "hit":
            return {"hits": sums.astype(int).tolist()}
        case "mean":
            return {"hits": sums.tolist()}
        case _:
            return {}


def _convert(settings: Settings, task: Task) -> nn.Module:
    model, sample = _model(settings), take(task.calibration, slice(0, RANGE_SAMPLES))
    clip, kv = settings.mitigation.clip, settings.mitigation.kv
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaysDigital)  # the result says what stays digital
        rules = all_rules(settings.rules, settings.task)
        options: dict[str, Any] = {"level": settings.simulation.level, "rules": rules, "seed": settings.seed}
        options["weights"] = settings.mitigation.weights
        options["clip"] = clip if isinstance(clip, KVClip) else None
        converted = convert(model, settings.hardware, sample=sample, **options)
    if isinstance(kv, Conditioning):
        set_kv(converted, kv)
    return converted


def _calibrated(settings: Settings, task: Task, converted: nn.Module) -> Calibration | None:
    """What was chosen for the model, and set."""
    if settings.mitigation.clip != "calibrated" and settings.mitigation.kv != "auto":
        return None
    inputs = take(task.calibration, slice(0, REMEDY_SAMPLES))
    remedy: Remedy = "auto" if settings.mitigation.kv == "auto" else "clip"
    return calibrate(converted, inputs, remedy=remedy, batch=settings.simulation.batch, seed=settings.seed)


def all_rules(rules: OrderedRules, task: TaskChoice | None) -> dict[str, Rule]:
    """The rules of a study, behind that which keeps a probe digital."""
    probe = {"probe": Rule(on="digital")} if task and task.probe else {}
    return {**probe, **dict(rules)}


@lru_cache(maxsize=4)
def _software(model: ModelChoice, task: TaskChoice, batch: int) -> float:
    found, data = loaded(model, task)
    measured = scores(found, data, batch)
    return data.summarise(np.stack([measured, measured])).mean  # two chips alike: one window alone has no interval


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread, so that sums are added in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
