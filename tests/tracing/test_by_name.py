"""Tracing what a name stands for."""

from __future__ import annotations

import pytest
import torch

import ohmformer as of


def test_a_name_is_a_table_or_a_model() -> None:
    assert of.trace("shapes:bert-base") == of.shapes("bert-base") == of.trace("bert-base")
    assert of.trace("shapes:gpt2", phase="decode", context=7) == of.shapes("gpt2", phase="decode", context=7)
    pixels = torch.zeros(2, 1, 28, 28)
    model = of.load_model("bundled:fashion-vit")
    assert of.trace("bundled:fashion-vit", sample=pixels) == of.trace(model, sample=pixels)


def test_what_is_missing_or_too_much_is_said() -> None:
    with pytest.raises(of.BadInput, match="sample: is missing"):
        of.trace("bundled:fashion-vit")
    with pytest.raises(of.BadInput, match="shapes:bert-base: is a table of dimensions, which takes no sample"):
        of.trace("shapes:bert-base", torch.zeros(1))
    with pytest.raises(of.BadInput, match="no such model"):
        of.trace("nothing:at-all", torch.zeros(1))
