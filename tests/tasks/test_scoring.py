"""Scores sample by sample, and which sample the noise belongs to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ohmformer import streams
from ohmformer.errors import BadInput
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task

N = 7
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])
TASK = Task("some data", torch.eye(3)[LABELS].clone(), LABELS, torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


class Answer(nn.Module):
    """Says its input, after a change of it."""

    def __init__(self, change: object = None) -> None:
        super().__init__()
        self.change = change
        self.rows: list[tuple[object, ...] | None] = []

    def forward(self, x: Tensor) -> object:
        self.rows.append(streams.current_samples())
        return self.change(x) if callable(self.change) else x


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_each_sample_has_its_score_and_its_name(batch: int) -> None:
    model = Answer(lambda x: torch.where(x[:, :1] > 0, x.roll(1, dims=1), x)).eval()
    found = scores(model, TASK, batch)
    assert found.tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert found.dtype == np.float64
    assert [name for rows in model.rows for name in rows or ()] == list(range(N))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x / 0, "NaN or infinite"),
        (lambda x: x[:, 0], r"a tensor \[3\]"),
        (lambda x: x[:1], r"a tensor \[1, 3\]"),
        (lambda x: {"logits": x}, "returns dict"),
    ],
)
def test_answers_that_make_no_sense_are_refused_by_name(change: object, said: str) -> None:
    with pytest.raises(BadInput, match=f"Answer on some data: .*{said}"):
        scores(Answer(change).eval(), TASK, 3)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(BadInput, match=r"model\.eval\(\)"):
        scores(Answer(), TASK, 3)


def test_labels_that_the_model_cannot_give_are_refused() -> None:
    labels = LABELS.clone()
    labels[-1] = 3
    task = Task("some data", TASK.inputs, labels, TASK.calibration, TASK.calibration_labels)
    with pytest.raises(BadInput, match=r"Answer on some data: labels are .*3.* the model has 3 classes"):
        scores(Answer().eval(), task, 3)
