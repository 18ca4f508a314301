"""Batches follow one another through all samples, each once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmformer import BadInput
from ohmformer.capture.inputs import batches, take


@given(st.integers(0, 40), st.integers(1, 50))
def test_every_sample_is_in_one_batch_in_order(count: int, batch: int) -> None:
    inputs = {"x": torch.arange(count), "scale": 2}
    parts = [take(inputs, rows)["x"] for rows in batches(inputs, batch)]
    assert torch.cat([torch.arange(0), *parts]).tolist() == list(range(count))
    assert all(len(part) == batch for part in parts[:-1])
    assert all(0 < len(part) <= batch for part in parts)


@pytest.mark.parametrize("batch", [0, -1, 2.5, True, "8"])
def test_what_is_no_batch_is_refused(batch: Any) -> None:
    with pytest.raises(BadInput, match="must be a whole number, 1 or more"):
        list(batches(torch.zeros(4), batch))
