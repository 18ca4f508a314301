"""Self-distillation: what a model says under noise is pulled toward what it said before, without any label.

B samples, T tokens, K classes or words, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, call
from ohmformer.errors import BadInput
from ohmformer.tasks.head_choice import head_for
from ohmformer.tasks.model_outputs import features, logits
from ohmformer.tasks.reading import Reading
from ohmformer.tasks.spec import TaskChoice

Kind = Literal["classes", "tokens", "features"]
USUAL: Mapping[Kind, dict[str, Any]] = {
    "classes": {"steps": 600, "batch": 32, "lr": 3e-4, "temperature": 2.0},
    "features": {"steps": 125, "batch": 16, "lr": 5e-5, "temperature": 1.0},
    "tokens": {"steps": 120, "batch": 2, "lr": 1e-4, "temperature": 1.0},
}
"""What is distilled -> settings that take some minutes on one core for the models of the studies here."""


def kind_of(choice: TaskChoice) -> Kind:
    """What a task wants of its model: classes, the next tokens, or features."""
    found: Mapping[str, Kind] = {"causal-lm": "tokens", "encoder": "features"}
    return found.get(head_for(choice), "classes")


def answers(model: nn.Module, inputs: Inputs, kind: Kind, reading: Reading) -> Tensor:
    """Logits [B, K] or [B, T, K], or features [B, D], in float32.

    Raises:
        BadInput: the model returns nothing of that kind.
    """
    said = call(model, inputs)
    if kind == "features":
        return features(said, inputs, reading)
    found = logits(said)
    if not isinstance(found, Tensor) or found.dim() != (3 if kind == "tokens" else 2):
        what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BadInput(f"{type(model).__name__} returns {what}, no logits; name a study of a classifier")
    return found.float()


def distance(said: Tensor, wanted: Tensor, kind: Kind, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Mean over samples, or over tokens that are no padding, of how far answers are from those that are wanted.

    Features: 1 - cosine. Logits: the Kullback-Leibler divergence of probabilities softened by the temperature, times
    its square, so that gradients keep their size (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2).
    """
    if kind == "features":
        return (1 - F.cosine_similarity(said, wanted, dim=-1)).mean()
    log_said, log_wanted = (torch.log_softmax(each / temperature, dim=-1) for each in (said, wanted))
    each = temperature**2 * (log_wanted.exp() * (log_wanted - log_said)).sum(dim=-1)
    return each[mask.bool()].mean() if mask is not None and mask.shape == each.shape else each.mean()


def mask_of(inputs: Inputs) -> Tensor | None:
    """[B, T] 1 for tokens that are no padding; None where there are no tokens."""
    return inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
