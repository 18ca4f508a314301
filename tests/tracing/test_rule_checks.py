"""Rules that fit no operand are refused by `trace` as by `convert`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ohmformer as of

CLIP = {"alpha": 2.0, "beta": 0.25}


class Attention(nn.Module):
    """Attention with two heads; `fused` or as two products."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.fused = nn.Linear(8, 8), nn.Linear(8, 8), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k))
        if self.fused:
            return F.scaled_dot_product_attention(q, k, k)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ k


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        multihead = kind == "multihead"
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True) if multihead else Attention(kind == "fused")
        self.multihead = multihead

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x)[0] if self.multihead else self.attn(x)


def refusals(kind: str, rules: dict[str, Any]) -> list[str]:
    """What `convert` (with a first pass) and `trace` say of the rules; empty texts if they take them."""
    x, found = torch.randn(3, 5, 8), []
    model = Model(kind).eval()
    hardware = of.load("clipformer_tcad_2024")
    for verb in (
        lambda: of.convert(model, hardware, sample=x, rules=rules)(x),
        lambda: of.trace(model, x, rules=rules),
    ):
        try:
            with of.samples(range(3)):
                verb()
        except of.BadInput as error:
            found.append(str(error))
        else:
            found.append("")
    return found


@pytest.mark.parametrize("kind", ["fused", "two products", "multihead"])
def test_the_number_of_clips_is_that_of_the_heads(kind: str) -> None:
    """Any number was once priced, although no conversion takes it."""
    assert refusals(kind, {"*.K": {"clip": [CLIP, "none"]}}) == ["", ""]
    for pattern in ("*.V", "attn"):
        for text in refusals(kind, {pattern: {"clip": [CLIP] * 3}}):
            assert "clip: 3 clips for 2 heads of K and V; give one for each head" in text


@pytest.mark.parametrize("kind", ["fused", "two products", "multihead"])
def test_a_rotation_needs_static_weights(kind: str) -> None:
    """A rule that rotates K or V alone was once priced, although `convert` refuses it."""
    for pattern in ("*.K", "*.[KV]"):
        text, other = refusals(kind, {pattern: {"rotate": True}})
        assert text == other
        assert text.endswith(f"{pattern!r}: rotate = true, but it matches no static weights on crossbars")
    assert refusals(kind, {"attn*": {"rotate": True}}) == ["", ""]


def test_a_rotation_may_be_meant_for_a_layer_that_the_sample_does_not_reach() -> None:
    model = Model("fused").eval()
    model.other = nn.Linear(8, 8)
    of.trace(model, torch.randn(3, 5, 8), rules={"other": {"rotate": True}})
