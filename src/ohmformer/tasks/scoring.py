"""Scoring a model on a task, sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ohmformer.errors import BadInput, check_type
from ohmformer.registry import called, is_own
from ohmformer.tasks.sample_scores import sample_features
from ohmformer.tasks.task import Task


def scores(model: nn.Module, task: Task, batch: int = 100) -> NDArray[np.float64]:
    """Score a model on every test sample of a task.

    The score depends on the task's metric:

    - top1, accuracy: 1 if the largest logit is at the label, else 0;
    - top5: 1 if the label is among the five largest logits, else 0;
    - fidelity: cosine similarity of the sample's features with those of the software model;
    - perplexity: mean negative log-likelihood of the scored tokens of a window;
    - pearson, spearman: cosine similarity of the features of a pair.

    Scores of hits and cosines are averaged. `task.summarize` gives the value of the other metrics.

    The noise of a converted model is keyed by the number of the sample in the task, so it is independent of `batch`.

    Args:
        model: a model in evaluation mode that maps inputs [B, ...] to logits [B, classes] or to features.
        task: the task to score on.
        batch: samples per call; the last call may have fewer.

    Returns:
        One score per sample (or pair, or window) [N], float64.

    Raises:
        BadInput: the model is in training mode, or its outputs are not finite or have another shape.
    """
    check_type("scores", "model", model, nn.Module, "a model, such as what of.convert or of.load_model returns")
    check_type("scores", "task", task, Task, "a task, such as what of.load_task returns")
    if model.training:
        raise BadInput(f"{type(model).__name__} is in training mode; call model.eval() before it is scored")
    found: NDArray[np.float64] = called(task.metric_kind, "scores", model, task, batch)
    if is_own(type(task.metric_kind)):
        return found
    where = f"{type(task.metric_kind).__name__}.scores on {task.name}"
    if not isinstance(found, np.ndarray) or found.dtype != np.float64 or found.shape != (len(task),):
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise BadInput(f"{where}: returns {what}; return a NumPy array float64 [{len(task)}], one score per sample")
    if not np.isfinite(found).all() or (task.metric_kind.counts == "hit" and not np.isin(found, (0.0, 1.0)).all()):
        raise BadInput(f"{where}: scores must be finite, and 0 or 1 if counts = 'hit'; correct them")
    return found


def with_reference(task: Task, model: nn.Module, batch: int = 100) -> Task:
    """Return the task with the features of a software model as the reference of `fidelity`.

    Raises:
        BadInput: the model returns no features.
    """
    return replace(task, reference=sample_features(model, task.inputs, task.reading, batch, task.name))
