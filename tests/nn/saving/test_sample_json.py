"""Sample batches as JSON, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.saving.sample_json import sample_as_json, sample_from_json, tensor_names

X = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "sample",
    [
        (1, 2.5, "text", None, True),
        [1, [2, (3,)], {"a": [4]}],
        {"mask": float("inf"), "fill": float("-inf"), "text": "Infinity"},
        ((), [], {}),
    ],
)
def test_a_sample_comes_back_with_its_types(sample: Any) -> None:
    described = json.loads(json.dumps(sample_as_json(sample, {}, "s/"), allow_nan=False))
    assert sample_from_json(described, {}) == sample


def test_nan_and_tensors_come_back() -> None:
    tensors: dict[str, Tensor] = {}
    described = sample_as_json([X, {"x": (X, float("nan"))}], tensors, "s/")
    assert tensor_names(described) == set(tensors) == {"s/0", "s/1"}
    first, second = sample_from_json(json.loads(json.dumps(described, allow_nan=False)), tensors)
    assert torch.equal(first, X)
    assert torch.equal(second["x"][0], X)
    assert math.isnan(second["x"][1])


@pytest.mark.parametrize("sample", [{0: X}, (X, {"a": {1: 2}}), (X, object()), (X, 1j)])
def test_what_json_cannot_hold_is_not_described(sample: Any) -> None:
    assert sample_as_json(sample, {}, "s/") is None


class Layers(nn.Module):
    """Takes a list of inputs, which it tells from a tuple, and a bound of their values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, parts: list[Tensor], bound: float) -> Tensor:
        """Return the sum over a list of parts."""
        assert isinstance(parts, list)
        assert isinstance(bound, float)
        return self.linear(torch.stack(parts, dim=1).sum(dim=1).clamp(max=bound))


def test_restore_runs_the_sample_that_was_saved(tmp_path: Path) -> None:
    model = Layers().eval()
    converted = of.convert(model, of.load("nvm_ideal"), sample={"parts": [X, 2 * X], "bound": float("inf")})
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(Layers().eval(), tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(restored([X, X], 1.0), converted([X, X], 1.0))
