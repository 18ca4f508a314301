"""Load a task by its source."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput, check_type, shown
from ohmformer.models.preprocessing import preparation
from ohmformer.models.sources import bundled_file, first_line, is_file, task_reader
from ohmformer.models.user_code import from_python
from ohmformer.schema import validate
from ohmformer.tasks.metric_kinds import compares_features
from ohmformer.tasks.scoring import with_reference
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.task import Task

READERS = {
    "imagefolder": ("ohmformer.tasks.image_folder", "folder_task"),
    "csv": ("ohmformer.tasks.csv_table", "table_task"),
    "text": ("ohmformer.tasks.running_text", "text_task"),
}
"""Prefix of a source -> module and function that read it, imported when a task of that source is loaded."""

OPTIONS = {
    "imagefolder": ("labels", "calibration", "probe", "train", "pooling"),
    "csv": ("labels", "calibration", "probe", "train", "pooling", "window"),
    "text": ("calibration", "window", "stride", "prefill", "step"),
}
"""Prefix of a source -> fields of `TaskChoice` that it uses, in addition to source, limit and metric."""


def load_task(source: str, limit: int | None = None, *, model: nn.Module | None = None, **options: Any) -> Task:
    """Load the task of a source.

    Args:
        source: 'bundled:fashion-mnist', 'bundled:northanger-abbey', 'imagefolder:FOLDER', 'csv:FILE', 'text:FILE', or
            'python:module:function' for a function that returns a `Task`.
        limit: number of test samples, counted from the first; None takes all.
        model: a model from `load_model`, which determines how images and texts become its inputs. Bundled tasks
            need none.
        options: the other fields of `ohmformer.tasks.spec.TaskChoice`, such as metric, window or labels.

    Raises:
        BadInput: the source does not exist or holds no samples, the limit exceeds the number of samples, or an option
            does not apply to the source.
    """
    check_type("load_task", "model", model, (nn.Module, type(None)), "a model from of.load_model, or None")
    if isinstance(limit, int) and limit < 1:
        raise BadInput(f"task.limit = {limit}: must be 1 or more; leave it out to take all samples")
    table = {"source": source, **({"limit": limit} if limit is not None else {}), **options}
    return make_task(validate(TaskChoice, table, where="", top="task", in_file=False), model)


def make_task(choice: TaskChoice, model: nn.Module | None = None) -> Task:
    """Load the task of a checked choice, prepared for a model.

    Raises:
        BadInput: as for `load_task`.
    """
    prefix = task_reader(choice.source)
    _check_options(choice, prefix)
    if prefix in ("imagefolder", "csv", "text"):
        module, function = READERS[prefix]
        task: Task = getattr(import_module(module), function)(choice, model)
    else:
        source = choice.source
        if prefix == "python":
            task = from_python("task", source, Task)
        else:
            task = _read_bundled(bundled_file("task", source), source)
        task = replace(task, metric=choice.metric) if choice.metric else task
        task = task.first(choice.limit)
    notes = (*preparation(model).notes, *task.notes)
    task = replace(task, notes=tuple(dict.fromkeys(notes)))
    if task.metric_kind.compares_features and model is not None:
        task = with_reference(task, model)
    return task


def _check_options(choice: TaskChoice, prefix: str) -> None:
    """Refuse options that do not apply to a source, or only together with another option."""
    for name, field in TaskChoice.model_fields.items():
        given = getattr(choice, name) != field.default
        if name not in ("source", "limit", "metric", "provenance", *OPTIONS.get(prefix, ())) and given:
            raise BadInput(
                f"task.{name} = {shown(getattr(choice, name))}: does not apply to {prefix}: sources; leave it out"
            )
    if choice.probe and compares_features(choice.metric):
        raise BadInput(
            f"task.probe = true: {choice.metric} compares features, but a probe returns logits; leave one of them out"
        )
    if choice.train is not None and not choice.probe:
        raise BadInput(f"task.train = {choice.train}: only a probe is trained; set task.probe = true, or leave it out")
    if choice.step != 1 and choice.prefill is None:
        raise BadInput(f"task.step = {choice.step}: only a KV cache has steps; set task.prefill, or leave it out")


def _read_bundled(file: Path, source: str) -> Task:
    """Read NAME_test.npz and NAME_calibration.npz, each with uint8 `images` [N, H, W] and `labels` [N]."""
    calibration_file = file.with_name(file.name.replace("_test.npz", "_calibration.npz"))
    return Task(source, *_arrays(file), *_arrays(calibration_file))


def _arrays(file: Path) -> tuple[Tensor, Tensor]:
    """Read images [N, 1, H, W] and labels [N] from one file.

    Raises:
        BadInput: the file is damaged, or its arrays are not gray images with one class each.
    """
    remedy = "make the file again, or install the package again"
    if not is_file(file):
        raise BadInput(f"{file}: is not a bundled data set (there is no such file); {remedy}")
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as content:
            images, labels = content["images"], content["labels"]
    except Exception as error:  # zip, zlib and NumPy raise many kinds of errors on damaged bytes
        raise BadInput(f"{file}: is not a bundled data set ({first_line(error)}); {remedy}") from error
    if images.ndim != 3 or images.dtype.kind not in "uif" or not images.size:
        what = f"{images.dtype} {list(images.shape)}"
        raise BadInput(f"{file}: images are {what}; write gray values uint8 [samples, height, width]")
    if not (images.min() >= 0 and images.max() <= 255):
        raise BadInput(f"{file}: images hold NaN or values outside 0 to 255; write gray values uint8")
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        what = f"{labels.dtype} {list(labels.shape)}"
        raise BadInput(f"{file}: labels are {what}; write class numbers [samples], an integer array")
    return normalize(images), torch.from_numpy(labels.astype(np.int64))


def normalize(images: np.ndarray) -> Tensor:
    """Convert gray images uint8 [N, H, W] to float32 [N, 1, H, W] in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32)).unsqueeze(1) / 127.5 - 1.0
