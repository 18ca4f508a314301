"""A linear probe: a classifier on the features of a frozen embedding model.

N samples, D features, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.inputs import call
from ohmformer.errors import BadInput
from ohmformer.models.preprocessing import preparation, remember
from ohmformer.tasks.image_folder import MAX_CLASSES
from ohmformer.tasks.model_outputs import features
from ohmformer.tasks.reading import Reading
from ohmformer.tasks.sample_scores import sample_features
from ohmformer.tasks.task import Task

PENALTY = 1.0
"""L2 penalty: weight of half the squared norm against the summed cross-entropy, on standardized features. It equals
C = 1 of scikit-learn's LogisticRegression."""

MAX_STEPS = 300
"""Maximum number of iterations of L-BFGS."""


class Probed(nn.Module):
    """An embedding model with a linear classifier behind it: inputs to logits [B, K].

    Attributes:
        body: the embedding model; names of its modules start with `body.`.
        probe: the classifier, which stays digital on converted models.
    """

    def __init__(self, body: nn.Module, probe: nn.Linear, reading: Reading) -> None:
        super().__init__()
        self.body = body
        self.probe = probe
        self.reading = reading

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Logits [B, K]."""
        inputs = kwargs if kwargs else args
        out: Tensor = self.probe(features(call(self.body, inputs), inputs, self.reading))
        return out


def probed(model: nn.Module, task: Task, batch: int = 100) -> Probed:
    """Return the model with a probe that is fitted on its features of the task's training samples.

    Args:
        model: an embedding model, before conversion.
        task: a task with training samples.
        batch: samples per call.

    Raises:
        BadInput: the task has no training samples, they belong to one class only, or a class number is too large.
    """
    if task.train is None:
        raise BadInput(f"{task.name}: has no training samples for a probe; load it with probe=True")
    inputs, labels = task.train
    classes = 1 + int(max(labels.max(), task.labels.max()))
    if len(labels.unique()) < 2:
        raise BadInput(f"{task.name}: the {len(labels)} training samples belong to one class; raise task.train")
    if classes > MAX_CLASSES:
        raise BadInput(f"{task.name}: has class {classes - 1}, above {MAX_CLASSES - 1}; number the classes from 0")
    train_features = sample_features(model, inputs, task.reading, batch, task.name)
    with_probe = Probed(model, fit(train_features, labels, classes), task.reading)
    remember(with_probe, preparation(model))
    return with_probe.eval()


def fit(x: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Fit a logistic regression by L-BFGS in float64. The result is deterministic.

    Features are standardized for the fit; the standardization is folded into weight and bias afterward.

    Args:
        x: features [N, D].
        labels: class numbers [N] int64.
        classes: number of classes K.

    Returns:
        A frozen linear layer from D features to K logits.
    """
    x = x.detach().clone().double()  # tensors made in inference mode cannot take part in autograd
    mean, spread = x.mean(dim=0), x.std(dim=0, unbiased=False).clamp(min=1e-9)
    x = (x - mean) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        cost = F.cross_entropy(x @ weight.T + bias, labels) + PENALTY / (2 * len(x)) * weight.square().sum()
        cost.backward()
        return float(cost.detach())

    with torch.enable_grad():
        optimizer.step(loss)
    probe = nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        probe.weight.copy_(weight / spread)
        probe.bias.copy_(bias - (weight / spread) @ mean)
    return probe.requires_grad_(False)
