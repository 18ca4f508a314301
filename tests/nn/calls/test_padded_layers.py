"""Layers of PyTorch tell their padding by arguments of their own: it draws no read noise, as elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.checks.comparing import difference

WRITE_NOISE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
READS = of.replace(WRITE_NOISE, "projection.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
HARDWARE = of.replace(READS, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
LEFT, RIGHT = [True, True, False, False, False, False], [False, False, False, False, True, True]


class Stack(nn.Module):
    """An encoder of PyTorch behind an argument of another name; the mean over its tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        y = self.encoder(x, src_key_padding_mask=hidden)
        there = torch.ones_like(y) if hidden is None else (~hidden)[..., None]
        mean: Tensor = (y * there).sum(dim=1) / there.sum(dim=1)
        return mean


class Loop(nn.Module):
    """Layers with the sequence first, called one by one with an additive mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32) for _ in range(2)])

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        additive = None if hidden is None else torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        y = x.transpose(0, 1)
        for layer in self.layers:
            y = layer(y, None, additive)
        y = y.transpose(0, 1)
        there = torch.ones_like(y) if hidden is None else (~hidden)[..., None]
        mean: Tensor = (y * there).sum(dim=1) / there.sum(dim=1)
        return mean


class Pair(nn.Module):
    """An encoder-decoder of PyTorch whose source is padded."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Transformer(16, 2, 1, 1, 32, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        target = torch.linspace(-1, 1, 16 * 4).reshape(1, 4, 16).expand(len(x), 4, 16)
        y: Tensor = self.both(x, target, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
        return y


@pytest.mark.parametrize("make", [Stack, Loop, Pair])
@pytest.mark.parametrize("training", [False, True])
def test_a_sample_beside_padding_has_the_noise_of_the_sample_alone(
    make: Callable[[], nn.Module], training: bool
) -> None:
    torch.manual_seed(0)
    x, hidden = torch.randn(2, 6, 16), torch.tensor([LEFT, RIGHT])
    converted = of.convert(make().eval(), HARDWARE, sample=x)
    with torch.set_grad_enabled(training), of.without_quantizers(converted):
        with of.samples(["a", "b"]):
            padded = converted(x, hidden).detach()
        for row, name in enumerate("ab"):
            with of.samples([name]):
                alone = converted(x[row : row + 1, ~hidden[row]]).detach()
            assert difference(alone, padded[row : row + 1]) < 1e-5


def test_the_hooks_of_layers_end_with_the_conversion() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 16)
    model = Stack().eval()
    reverted = of.revert(of.convert(model, HARDWARE, sample=x))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in reverted.modules())
