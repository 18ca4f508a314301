"""Scoring a model on a task, sample by sample."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.streams import samples
from ohmformer.tasks.data import Task


def scores(model: nn.Module, task: Task, batch: int = 100) -> NDArray[np.float64]:
    """Score of every test sample [N]: 1 where the largest logit is at the label, else 0.

    Sample n of the task is sample n to the noise of a converted model, whatever the batch size.

    Args:
        model: a classifier in evaluation mode: inputs [B, ...] to logits [B, classes].
        task: what to score on.
        batch: samples per call; the last call may have fewer.

    Raises:
        BadInput: the model is in training mode, or its logits are not finite or of another shape.
    """
    if model.training:
        raise BadInput(f"{type(model).__name__} is in training mode; call model.eval() before it is scored")
    found: list[NDArray[np.float64]] = []
    with torch.inference_mode():
        for start in range(0, len(task), batch):
            rows = slice(start, start + batch)
            labels = task.labels[rows]
            with samples(range(start, start + len(labels))):
                logits = model(task.inputs[rows])
            _check(logits, len(labels), model, task)
            found.append((logits.argmax(dim=1) == labels).double().numpy(force=True))
    return np.concatenate(found)


def _check(logits: object, rows: int, model: nn.Module, task: Task) -> None:
    who = f"{type(model).__name__} on {task.name}"
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != rows:
        what = f"a tensor {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise BadInput(f"{who}: returns {what}; wrap it so that it returns logits [{rows}, classes]")
    low, high = int(task.labels.min()), int(task.labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise BadInput(
            f"{who}: labels are {low} to {high} but the model has {logits.shape[1]} classes; number them from 0"
        )
    if not logits.isfinite().all():
        raise BadInput(f"{who}: logits are NaN or infinite; check weights, inputs and normalisation, or use float32")
