"""Scores of samples under each metric, and their summaries, from plain tensors.

N samples, P pairs, C chips, D features.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, call, size
from ohmformer.errors import BadInput
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.stats.metrics import correlation_summary, perplexity_summary
from ohmformer.tasks.model_outputs import features, logits, run_batches, token_losses
from ohmformer.tasks.reading import IGNORED, Reading


def sample_features(
    model: nn.Module, inputs: Inputs, reading: Reading, batch: int, name: str, set_name: str = ""
) -> Tensor:
    """Compute the features of samples, pooled as the task specifies.

    Args:
        model: a model in evaluation mode.
        inputs: inputs of N samples.
        reading: how the model's output is pooled.
        batch: samples per call.
        name: name of the task, for error messages.
        set_name: name of the set of samples, if it is not the test set; see `run_batches`.

    Returns:
        Features [N, D], float32.

    Raises:
        BadInput: a feature is NaN or infinite.
    """

    def compute(batch_model: nn.Module, batch_inputs: Inputs) -> Tensor:
        return features(call(batch_model, batch_inputs), batch_inputs, reading)

    found = torch.cat([output for _, output in run_batches(model, inputs, batch, compute, set_name)])
    if not found.isfinite().all():
        raise BadInput(f"{type(model).__name__} on {name}: features are NaN or infinite; check weights and inputs")
    return found


def top_k_hits(model: nn.Module, inputs: Inputs, labels: Tensor, k: int, batch: int, name: str) -> NDArray[np.float64]:
    """Return 1 for each sample whose label [N] is among its k largest logits, else 0 [N].

    Raises:
        BadInput: the model returns no finite logits [samples, classes], or the labels exceed its classes.
    """
    hits: list[NDArray[np.float64]] = []
    for rows, output in run_batches(model, inputs, batch, lambda model, inputs: logits(call(model, inputs))):
        batch_labels = labels[rows]
        _check_logits(output, len(batch_labels), labels, k, f"{type(model).__name__} on {name}")
        batch_labels = batch_labels.to(output.device)
        if k == 1:
            hit = output.argmax(dim=1) == batch_labels
        else:
            hit = (output.topk(k, dim=1).indices == batch_labels[:, None]).any(dim=1)
        hits.append(hit.double().numpy(force=True))
    return np.concatenate(hits)


def pair_similarities(
    model: nn.Module, inputs: Inputs, pairs: Tensor, reading: Reading, batch: int, name: str
) -> NDArray[np.float64]:
    """Return the cosine similarity [P] of the features of the two samples of each pair [P, 2]."""
    unit = F.normalize(sample_features(model, inputs, reading, batch, name).double(), dim=1)
    cosine: NDArray[np.float64] = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(dim=1).numpy(force=True)
    return cosine


def reference_similarities(
    model: nn.Module, inputs: Inputs, reference: Tensor | None, reading: Reading, batch: int, name: str
) -> NDArray[np.float64]:
    """Return the cosine similarity [N] of features with those of the software model, `reference` [N, D].

    Raises:
        BadInput: there is no reference, or it has another shape than the model's features.
    """
    if reference is None or len(reference) != size(inputs):
        raise BadInput(f"{name}: fidelity needs a software model to compare with; load_task(..., model=model)")
    found = sample_features(model, inputs, reading, batch, name)
    if found.shape != reference.shape:
        shapes = f"{list(found.shape)}, but the software model returns {list(reference.shape)}"
        raise BadInput(f"{type(model).__name__} on {name}: returns features {shapes}; compare models of one kind")
    cosine: NDArray[np.float64] = F.cosine_similarity(found.double(), reference.to(found).double()).numpy(force=True)
    return cosine


def window_losses(
    model: nn.Module, inputs: Inputs, labels: Tensor, reading: Reading, batch: int, name: str
) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood [N] of the scored tokens of each window; `labels` is [N, T].

    Raises:
        BadInput: the model returns no finite logits [samples, tokens, words].
    """
    losses: list[NDArray[np.float64]] = []
    start = 0

    def compute(batch_model: nn.Module, batch_inputs: Inputs) -> Tensor:
        batch_labels = labels[start : start + size(batch_inputs)]
        return token_losses(batch_model, batch_inputs, batch_labels, reading)

    for rows, output in run_batches(model, inputs, batch, compute):
        if not output.isfinite().all():
            raise BadInput(f"{type(model).__name__} on {name}: logits are NaN or infinite; check weights, use float32")
        losses.append(output.numpy(force=True))
        start = rows.stop
    return np.concatenate(losses)


def summarize_correlation(
    scores: Floats, labels: Tensor, pairs: Tensor | None, kind: Literal["pearson", "spearman"]
) -> Summary:
    """Correlate the similarities [C, P] of C chips with the reported ones, `labels` [P]."""
    items = None if pairs is None else pairs.numpy()
    items_recur = items is not None and len(np.unique(items)) < items.size
    return correlation_summary(scores, labels.double().numpy(), kind, items if items_recur else None)


def summarize_perplexity(scores: Floats, labels: Tensor) -> Summary:
    """Compute the perplexity from the losses [C, N] of C chips; `labels` [N, T] say which tokens were scored."""
    tokens = (labels != IGNORED).sum(dim=1).double().numpy()
    return perplexity_summary(scores, tokens)


def _check_logits(output: object, rows: int, labels: Tensor, k: int, where: str) -> None:
    """Refuse outputs that are not finite logits [rows, classes] with a class for every label."""
    if not isinstance(output, Tensor) or output.is_complex() or output.dim() != 2 or len(output) != rows:
        what = f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise BadInput(f"{where}: returns {what}; wrap the model so that it returns logits [{rows}, classes]")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= output.shape[1]:
        raise BadInput(
            f"{where}: labels are {low} to {high} but the model has {output.shape[1]} classes; number them from 0"
        )
    if output.shape[1] <= k > 1:
        raise BadInput(f"{where}: top5 is always 100 % with {output.shape[1]} classes; use top1")
    if not output.isfinite().all():
        raise BadInput(f"{where}: logits are NaN or infinite; check weights, inputs and normalization, or use float32")
