"""Scoring a model on a task, sample by sample.

N samples, P pairs, B samples of a batch, D features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, call, size
from ohmformer.errors import BadInput
from ohmformer.registry import is_own
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.stats.metrics import correlation_summary, perplexity_summary
from ohmformer.tasks.load import IGNORED, Task
from ohmformer.tasks.model_outputs import asked, features, logits, token_losses


def scores(model: nn.Module, task: Task, batch: int = 100) -> NDArray[np.float64]:
    """Score of every test sample [N]; `task.summarise` makes one number of them where the metric is no plain mean.

    top1, accuracy: 1 where the largest logit is at the label, else 0. top5: where the label is among the five largest.
    fidelity: cosine of a sample's features with those of the software model. perplexity: mean negative log-likelihood
    of a window's tokens. pearson, spearman: cosine of the features of each pair [P].

    Sample n of the task is sample n to the noise of a converted model, whatever the batch size.

    Args:
        model: in evaluation mode: inputs [B, ...] to logits [B, classes], or to features.
        task: what to score on.
        batch: samples per call; the last call may have fewer.

    Raises:
        BadInput: the model is in training mode, or its answers are not finite or of another shape.
    """
    if model.training:
        raise BadInput(f"{type(model).__name__} is in training mode; call model.eval() before it is scored")
    found = task.scored.scores(model, task, batch)
    if is_own(type(task.scored)):
        return found
    where = f"{type(task.scored).__name__}.scores on {task.name}"
    if not isinstance(found, np.ndarray) or found.dtype != np.float64 or found.shape != (len(task),):
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
        raise BadInput(f"{where}: gives {what}; give a NumPy array float64 [{len(task)}], a score for each sample")
    if not np.isfinite(found).all() or (task.scored.counts == "hit" and not np.isin(found, (0.0, 1.0)).all()):
        raise BadInput(f"{where}: scores must be finite, and 0 or 1 where counts = 'hit'; correct them")
    return found


def embeddings(model: nn.Module, task: Task, inputs: Inputs, batch: int = 100, name: str = "") -> Tensor:
    """Features [N, D] float32 of samples, pooled as the task says.

    Raises:
        BadInput: they are not finite.
    """

    def ask(asked_model: nn.Module, rows: Inputs) -> Tensor:
        return features(call(asked_model, rows), rows, task.reading)

    found = torch.cat([answer for _, answer in asked(model, inputs, batch, ask, name)])
    if not found.isfinite().all():
        raise BadInput(f"{type(model).__name__} on {task.name}: features are NaN or infinite; check weights and inputs")
    return found


def against(task: Task, model: nn.Module, batch: int = 100) -> Task:
    """The task with the features of a software model as what `fidelity` compares with.

    Raises:
        BadInput: the model has no features.
    """
    return replace(task, reference=embeddings(model, task, task.inputs, batch))


def hits(model: nn.Module, task: Task, batch: int, best: int) -> NDArray[np.float64]:
    """1 or 0 [N]: where the label is among the `best` largest logits."""
    found: list[NDArray[np.float64]] = []
    for rows, answer in asked(model, task.inputs, batch, lambda model, inputs: logits(call(model, inputs))):
        labels = task.labels[rows]
        _check(answer, len(labels), model, task, best)
        labels = labels.to(answer.device)
        if best == 1:
            right = answer.argmax(dim=1) == labels
        else:
            right = (answer.topk(best, dim=1).indices == labels[:, None]).any(dim=1)
        found.append(right.double().numpy(force=True))
    return np.concatenate(found)


def similarities(model: nn.Module, task: Task, batch: int) -> NDArray[np.float64]:
    """Cosine of the features of each pair [P]."""
    if task.pairs is None:
        raise BadInput(f"{task.name}: metric = {task.metric!r} needs pairs of samples; give the task its pairs")
    found = F.normalize(embeddings(model, task, task.inputs, batch).double(), dim=1)
    similar: NDArray[np.float64] = (found[task.pairs[:, 0]] * found[task.pairs[:, 1]]).sum(dim=1).numpy(force=True)
    return similar


def fidelities(model: nn.Module, task: Task, batch: int) -> NDArray[np.float64]:
    """Cosine [N] of features with those of the software model."""
    if task.reference is None or len(task.reference) != size(task.inputs):
        raise BadInput(f"{task.name}: fidelity needs a software model to compare with; load_task(..., model=model)")
    found = embeddings(model, task, task.inputs, batch)
    if found.shape != task.reference.shape:
        shapes = f"{list(found.shape)}, the software model {list(task.reference.shape)}"
        raise BadInput(f"{type(model).__name__} on {task.name}: gives features {shapes}; compare models of one kind")
    cosine: NDArray[np.float64] = F.cosine_similarity(found.double(), task.reference.to(found).double()).numpy(
        force=True
    )
    return cosine


def losses(model: nn.Module, task: Task, batch: int) -> NDArray[np.float64]:
    """Mean negative log-likelihood [N] of the tokens of each window."""
    found: list[NDArray[np.float64]] = []
    start = 0

    def ask(asked_model: nn.Module, inputs: Inputs) -> Tensor:
        labels = task.labels[start : start + size(inputs)]
        return token_losses(asked_model, inputs, labels, task.reading)

    for rows, answer in asked(model, task.inputs, batch, ask):
        if not answer.isfinite().all():
            raise BadInput(
                f"{type(model).__name__} on {task.name}: logits are NaN or infinite; check weights, use float32"
            )
        found.append(answer.numpy(force=True))
        start = rows.stop
    return np.concatenate(found)


def correlation(scores: Floats, task: Task, kind: Literal["pearson", "spearman"]) -> Summary:
    """Of the scores [C, P] of C chips with the labels."""
    pairs = None if task.pairs is None else task.pairs.numpy()
    shared = pairs is not None and len(np.unique(pairs)) < pairs.size
    truth = task.labels.double().numpy()
    return correlation_summary(scores, truth, kind, pairs if shared else None)


def perplexity(scores: Floats, task: Task) -> Summary:
    """Of the losses [C, N] of C chips."""
    tokens = (task.labels != IGNORED).sum(dim=1).double().numpy()
    return perplexity_summary(scores, tokens)


def _check(answer: object, rows: int, model: nn.Module, task: Task, best: int) -> None:
    who = f"{type(model).__name__} on {task.name}"
    real = isinstance(answer, torch.Tensor) and not answer.is_complex()
    if not isinstance(answer, torch.Tensor) or not real or answer.dim() != 2 or len(answer) != rows:
        what = f"a tensor {list(answer.shape)}" if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise BadInput(f"{who}: returns {what}; wrap it so that it returns logits [{rows}, classes]")
    low, high = int(task.labels.min()), int(task.labels.max())
    if low < 0 or high >= answer.shape[1]:
        raise BadInput(
            f"{who}: labels are {low} to {high} but the model has {answer.shape[1]} classes; number them from 0"
        )
    if answer.shape[1] <= best > 1:
        raise BadInput(f"{who}: top5 says nothing of {answer.shape[1]} classes; use top1")
    if not answer.isfinite().all():
        raise BadInput(f"{who}: logits are NaN or infinite; check weights, inputs and normalization, or use float32")
