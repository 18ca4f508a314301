"""A linear classifier on the features of a frozen model: what makes a classifier of an embedding model.

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
from ohmformer.tasks.load import Reading, Task
from ohmformer.tasks.metrics import embeddings
from ohmformer.tasks.model_outputs import features

PENALTY = 1.0
"""Weight of half the squared norm against the summed cross-entropy, on standardised features: scikit-learn's C = 1."""

STEPS = 300


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
    """The model with a probe that was fitted on the clean features of the task's training samples.

    Raises:
        BadInput: the task has no training samples, or they are of one class only.
    """
    if task.train is None:
        raise BadInput(f"{task.name}: has no training samples for a probe; load it with probe=True")
    inputs, labels = task.train
    classes = 1 + int(max(labels.max(), task.labels.max()))
    if len(labels.unique()) < 2:
        raise BadInput(f"{task.name}: the {len(labels)} training samples are of one class; raise task.train")
    found = Probed(model, fit(embeddings(model, task, inputs, batch), labels, classes), task.reading)
    remember(found, preparation(model))
    return found.eval()


def fit(x: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Logistic regression of labels [N] on features x [N, D], by L-BFGS in float64; the same at every call.

    Features are standardised for the fit, which is folded into weight and bias afterwards.
    """
    x = x.detach().clone().double()  # a tensor made in inference mode takes no part in gradients
    mean, spread = x.mean(dim=0), x.std(dim=0, unbiased=False).clamp(min=1e-9)
    x = (x - mean) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimiser.zero_grad()
        cost = F.cross_entropy(x @ weight.T + bias, labels) + PENALTY / (2 * len(x)) * weight.square().sum()
        cost.backward()
        return float(cost.detach())

    with torch.enable_grad():
        optimiser.step(loss)
    probe = nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        probe.weight.copy_(weight / spread)
        probe.bias.copy_(bias - (weight / spread) @ mean)
    return probe.requires_grad_(False)
