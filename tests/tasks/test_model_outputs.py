"""A model that does not fit its task ends in one line, whatever it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.tasks.model_outputs import features, run_model
from ohmformer.tasks.reading import Reading
from ohmformer.tasks.sample_scores import sample_features
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task

TASK = Task("some data", torch.eye(3), torch.arange(3), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


class Does(nn.Module):
    """What a function does with its input."""

    def __init__(self, act: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> object:
        return self.act(x)


def leaves(x: Tensor) -> object:
    raise SystemExit(3)


def speaks(x: Tensor) -> object:
    raise RuntimeError("first line\nsecond line")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (speaks, r"Does fails on samples 0 to 1 \(RuntimeError: first line\); the inputs are inputs \[2, 3\] float32"),
        (leaves, "SystemExit: 3"),
        (lambda x: {}["nothing"], "KeyError: 'nothing'"),
        (nn.Linear(5, 2), "shapes cannot be multiplied"),
        (nn.Embedding(3, 2), "indices"),
        (lambda x: x.no_such_thing(), "AttributeError"),
        (lambda x: None, "returns NoneType"),
        (lambda x: "text", "returns str"),
        (lambda x: (), "returns tuple"),
        (lambda x: [x], "returns list"),
        (lambda x: {"logits": x}, "returns dict"),
        (lambda x: x.sum(), r"returns a tensor \[\]"),
        (lambda x: x.to(torch.complex64), "returns a tensor"),
        (lambda x: x[:, :2], "the model has 2 classes"),
        (lambda x: x * float("nan"), "NaN or infinite"),
    ],
)
def test_whatever_a_model_does_is_told_in_one_line(act: Callable[[Tensor], object], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        scores(Does(act).eval(), TASK, 2)
    assert "\n" not in str(caught.value)


def test_a_tuple_stands_for_its_first_part() -> None:
    assert scores(Does(lambda x: (x, None)).eval(), TASK).tolist() == [1, 1, 1]


def test_what_a_model_says_of_its_input_itself_is_passed_on() -> None:
    def refuses(x: Tensor) -> object:
        raise BadInput("task.limit = 3: raise it")

    with pytest.raises(BadInput, match=r"^task\.limit = 3: raise it$"):
        scores(Does(refuses).eval(), TASK)


def test_names_of_inputs_are_told() -> None:
    given = {"input_ids": torch.zeros(2, 5, dtype=torch.int64), "use_cache": False}
    with pytest.raises(BadInput, match=r"training samples 0 to 2 \(.*inputs \[3, 3\]"):
        sample_features(Does(speaks).eval(), torch.eye(3), Reading(), 100, "some data", set_name="training")
    with pytest.raises(BadInput, match=r"input_ids \[2, 5\] int64; use_cache False: choose a model and a task"):
        run_model(Does(speaks), given, lambda model, inputs: model(**inputs))


def test_the_first_token_stands_behind_padding_on_the_left() -> None:
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    found = features(tokens, {"attention_mask": mask}, Reading(pooling="cls"))
    assert torch.equal(found, torch.stack([tokens[0, 2], tokens[1, 0]]))
    assert torch.equal(features(tokens, None, Reading(pooling="cls")), tokens[:, 0])
