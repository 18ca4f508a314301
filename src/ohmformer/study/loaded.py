"""Model and data of a point: loaded once for a process, and identified by digests.

The points of a study mostly share model and task, and differ in their hardware. So the functions below keep what they
returned for the last few choices of model and task (`KEPT`). Choices are frozen and hashable, nothing here changes a
model, and each worker process has its own copies, so what is kept never changes a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from ohmformer.capture.inputs import call, take
from ohmformer.capture.torch_private import tree_leaves
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.rules import OrderedRules, Rule
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.mitigation.spec import KVClip
from ohmformer.models.load import make_model, model_digest
from ohmformer.models.spec import ModelChoice
from ohmformer.streams.backends import Kernels, drawn_on
from ohmformer.streams.compiling import check_kernels
from ohmformer.study.results.key import Identity, digest
from ohmformer.study.spec import Settings
from ohmformer.study.trials.checks import check_trials
from ohmformer.tasks.head_choice import head_for
from ohmformer.tasks.load import make_task
from ohmformer.tasks.model_outputs import run_model
from ohmformer.tasks.probe import probed
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.task import Task

KEPT = 4
"""Models, tasks and digests that a process keeps of each kind."""

IDENTITY_SAMPLES = 4
"""Calibration inputs whose outputs are part of a model's identity."""

IDENTITY_VALUES = 10_000
"""Minimum number of values of each output that are part of a model's identity; all if an output has fewer."""

_body = lru_cache(maxsize=KEPT)(make_model)


@contextmanager
def one_thread() -> Iterator[None]:
    """Context with one thread of PyTorch, so that sums have the same order, and the same bits, everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=KEPT)
def loaded(model: ModelChoice, task: TaskChoice) -> tuple[nn.Module, Task]:
    """A model with the head that the task needs, and the task, prepared for that model.

    Raises:
        BadInput: one of them cannot be loaded.
    """
    with one_thread():
        body = _body(model, head_for(task))
        data = make_task(task, body)
        return (probed(body, data), data) if task.probe else (body, data)


@lru_cache(maxsize=KEPT)
def software_metric(model: ModelChoice, task: TaskChoice, batch: int) -> float:
    """The metric of the model without crossbars; `batch` is the number of samples per call."""
    body, data = loaded(model, task)
    measured = scores(body, data, batch)
    return data.summarize(np.stack([measured, measured])).mean  # two equal chips: one window alone has no interval


def all_rules(rules: OrderedRules, task: TaskChoice | None) -> dict[str, Rule]:
    """The rules of a study, behind the rule that keeps a probe digital where the task has one."""
    probe = {"probe": Rule(on="digital")} if task and task.probe else {}
    return {**probe, **dict(rules)}


def identify(settings: Settings) -> Identity:
    """Digests of model and data, which it loads.

    Raises:
        BadInput: they cannot be loaded, the clip does not fit the arrays, or numba is missing for compiled kernels.
    """
    check_kernels(settings.simulation.kernels, "simulation.kernels")
    for engine in (settings.hardware.attention.key, settings.hardware.attention.value):
        if isinstance(settings.mitigation.clip, KVClip) and isinstance(engine, CrossbarEngine):
            try:
                settings.mitigation.clip.check(engine.array)
            except BadInput as error:
                raise BadInput(f"mitigation.{error}") from None
    _, task = loaded(settings.model, settings.task)
    check_trials(settings, task)
    return identity_of(settings.model, settings.task, settings.simulation.kernels)


def identity_of(model: ModelChoice, task: TaskChoice, kernels: Kernels = "torch") -> Identity:
    """Digests of a model and of data, which it loads.

    Args:
        model: the model.
        task: the task.
        kernels: what computes, whose name is part of the identity.

    Raises:
        BadInput: they cannot be loaded.
    """
    digests = _model_digest(model, task), loaded(model, task)[1].digest
    return Identity(*digests, device=drawn_on("cpu", kernels))


def check_identity(settings: Settings, identity: Identity) -> None:
    """Refuse a model or data that differ from those whose digests are in the key.

    Raises:
        BadInput: a function of the user returned something else at this call.
    """
    here = identify(settings)
    for section, source in (("model", settings.model.source), ("task", settings.task.source)):
        if getattr(here, section) != getattr(identity, section):
            raise BadInput(
                f"{section}.source = {shown(source)}: gives another {section} at each call; load it from a file, or "
                "seed what is random, such as with torch.manual_seed"
            )


@lru_cache(maxsize=KEPT)
def _model_digest(choice: ModelChoice, task_choice: TaskChoice) -> str:
    """Digest of a model and of its outputs: weights and code do not say all, such as plain attributes."""
    model, task = loaded(choice, task_choice)
    with one_thread(), torch.inference_mode():
        samples = take(task.calibration, slice(0, IDENTITY_SAMPLES))
        outputs = run_model(model, samples, _rounded_outputs, "calibration samples")
    return digest([model_digest(model), outputs])


def _rounded_outputs(model: nn.Module, inputs: Any) -> list[list[float]] | str:
    """Rounded values of a model's outputs; the name of their type where they hold no tensors.

    Raises:
        BadInput: some are NaN or infinite.
    """
    outputs = call(model, inputs)
    tensors = [_strided(leaf).double() for leaf in tree_leaves(_fields(outputs)) if isinstance(leaf, torch.Tensor)]
    if not all(values.isfinite().all() for values in tensors):
        raise BadInput(f"{type(model).__name__}: its outputs are NaN or infinite; check weights and inputs")
    return [values.round(decimals=3).tolist() for values in tensors] or repr(type(outputs))


def _strided(values: torch.Tensor) -> torch.Tensor:
    """Values [n] at equal distances in a tensor; enough of them that no other model has the same ones."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // IDENTITY_VALUES)]


def _fields(outputs: Any) -> list[Any]:
    """The outputs of a model, without the class that Hugging Face wraps them in."""
    is_table = hasattr(outputs, "values") and not isinstance(outputs, torch.Tensor)
    return list(outputs.values()) if is_table else [outputs]
