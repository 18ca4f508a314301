"""One point: from settings to numbers. A pure function of picklable input, so it may run in any process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.mapping.spec import KVClip
from ohmformer.nn.calibrate import candidates, choose_clip
from ohmformer.nn.clipping import check_clip
from ohmformer.nn.convert import StaysDigital, capture_table, convert
from ohmformer.nn.montecarlo import Interrupted, monte_carlo
from ohmformer.study.keys import Identity, digest
from ohmformer.study.labels import write_noise
from ohmformer.study.spec import Settings
from ohmformer.tasks.data import Task, load_task
from ohmformer.tasks.metrics import scores
from ohmformer.tasks.models import load_model, model_digest

RANGE_SAMPLES = 100
"""Calibration inputs that fix the ranges of input quantisers and converters."""

IDENTITY_SAMPLES = 4
"""Calibration inputs whose outputs are part of a model's identity."""

CLIP_SAMPLES = 100
"""Calibration inputs on which a clip is chosen."""

_model = lru_cache(maxsize=4)(load_model)
_task = lru_cache(maxsize=4)(load_task)


def identify(settings: Settings) -> Identity:
    """Load model and data, and say which they are.

    Raises:
        BadInput: they cannot be loaded, or the clip does not go with the arrays.
    """
    for engine in (settings.hardware.attention.key, settings.hardware.attention.value):
        if isinstance(settings.mitigation.clip, KVClip) and isinstance(engine, CrossbarEngine):
            try:
                check_clip(settings.mitigation.clip, engine.array)
            except BadInput as error:
                raise BadInput(f"mitigation.{error}") from None
    task = _task(settings.task.source, settings.task.limit)
    model = _model_digest(settings.model.source, settings.task.source, settings.task.limit)
    return Identity(model=model, task=task.digest)


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
def _model_digest(source: str, task: str, limit: int | None) -> str:
    """Digest of a model and of what it does: its weights and its code do not say all, such as plain attributes."""
    model, inputs = _model(source), _task(task, limit).calibration[:IDENTITY_SAMPLES]
    with one_thread(), torch.inference_mode():
        outputs = model(inputs)
    seen = outputs.double().round(decimals=3).tolist() if isinstance(outputs, torch.Tensor) else repr(type(outputs))
    return digest([model_digest(model), seen])


def evaluate_point(settings: Settings) -> dict[str, Any]:
    """The numbers of one point, as plain JSON values: `accuracy` as in a results file, and what its reader may ask for.

    `hits[n]` is on how many chips sample n was right; `capture` says what ran on crossbars and what stayed digital;
    `write_noise` is what each role's cells had.

    Raises:
        BadInput: the model, the data or the hardware cannot be used.
    """
    with one_thread():
        task = _task(settings.task.source, settings.task.limit)
        clip = settings.mitigation.clip
        chosen = _choose_clip(settings, task) if clip == "calibrated" else None
        converted = _convert(settings, task, clip if isinstance(clip, KVClip) else chosen)
        return {
            "accuracy": _accuracy(settings, task, converted, chosen),
            "capture": capture_table(converted).summary(),
            "write_noise": write_noise(settings.hardware),
        }


def _accuracy(settings: Settings, task: Task, converted: nn.Module, chosen: KVClip | None) -> dict[str, Any]:
    measure = partial(scores, task=task, batch=settings.simulation.batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Interrupted)
        stats = monte_carlo(converted, measure, chips=settings.trials.chips, seed=settings.seed, progress=False)
    if stats.interrupted or stats.scores is None:
        raise KeyboardInterrupt
    software = _software(settings.model.source, settings.task.source, settings.task.limit, settings.simulation.batch)
    return {
        "metric": task.metric,
        "level": settings.simulation.level,
        "software": software,
        "mean": stats.mean,
        "ci95": list(stats.ci95),
        "chips": list(stats.chips),
        "samples": stats.samples,
        "hits": stats.scores.sum(axis=0).astype(int).tolist(),
        **({"clip": chosen.canonical()} if chosen else {}),
    }


def _convert(settings: Settings, task: Task, clip: KVClip | None) -> nn.Module:
    model, sample = _model(settings.model.source), task.calibration[:RANGE_SAMPLES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaysDigital)  # the result says what stays digital
        level = settings.simulation.level
        return convert(model, settings.hardware, sample=sample, clip=clip, level=level, seed=settings.seed)


def _choose_clip(settings: Settings, task: Task) -> KVClip:
    return choose_clip(
        _model(settings.model.source),
        _convert(settings, task, None),
        task.calibration[:CLIP_SAMPLES],
        candidates(settings.hardware),
        batch=settings.simulation.batch,
        seed=settings.seed,
    )


@lru_cache(maxsize=4)
def _software(model: str, task: str, limit: int | None, batch: int) -> float:
    return float(scores(_model(model), _task(task, limit), batch).mean())


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread, so that sums are added in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
