"""Products of two activations that models write out: whichever way around they stand, the same factor is in cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
TOKENS = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
REAL = 5
"""So many tokens of each sample are no padding, where there is any."""


class Written(nn.Module):
    """Attention whose P V is written as it is, or as the transpose of V^T P^T; padding is hidden on request."""

    def __init__(self, *, turned: bool, padded: bool) -> None:
        super().__init__()
        self.turned, self.padded = turned, padded
        self.qkv = nn.Linear(24, 72)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 6)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1)
        if self.padded:
            there = torch.arange(x.shape[1]) < REAL
            scores = scores.masked_fill(~there, float("-inf"))
        p = scores.softmax(dim=-1)
        y = (v.transpose(2, 3) @ p.transpose(2, 3)).transpose(2, 3) if self.turned else p @ v
        return y.transpose(1, 2).flatten(2)


@pytest.mark.filterwarnings("ignore::ohmformer.streams.UnnamedSamples")
@pytest.mark.parametrize("padded", [False, True])
def test_v_is_written_whichever_way_around_a_model_multiplies(padded: bool) -> None:
    plain, turned = (Written(turned=turned, padded=padded).eval() for turned in (False, True))
    turned.load_state_dict(plain.state_dict())
    one, other = (of.convert(model, HARDWARE, sample=TOKENS) for model in (plain, turned))
    with torch.no_grad():
        assert torch.equal(one(TOKENS), other(TOKENS))
        assert not torch.allclose(one(TOKENS), plain(TOKENS), atol=1e-3)


class InParts(nn.Module):
    """Attention that computes the scores of all parts of the queries first, and then all results."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = [part @ k.transpose(1, 2) for part in q.split(2, dim=1)]
        return torch.cat([s.softmax(dim=-1) @ v for s in scores], dim=1)


def test_a_call_with_fewer_parts_does_not_take_v_for_k() -> None:
    """Products are told apart by position, so with fewer parts a P V would stand where a Q K^T stood."""
    torch.manual_seed(0)
    converted = of.convert(InParts().eval(), HARDWARE, sample=TOKENS)
    with torch.no_grad(), of.samples(range(2)):
        converted(TOKENS[:, :7])
        with pytest.raises(of.BadInput, match="a call ended after 4 products of activations, but there were 8 on the"):
            converted(TOKENS[:, :4])


class Expanded(nn.Module):
    """A projection by `bmm` with the weights expanded to the samples, or by `linear` with a vector of weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.weight = nn.Parameter(torch.randn(24, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Results [B, N, 5] or [B, N]."""
        copies = self.weight.expand(len(x), 24, 5)
        if self.how == "bmm":
            return torch.bmm(x, copies)
        if self.how == "baddbmm":
            return torch.baddbmm(x[:, :, :5], x, copies)
        if self.how == "weights first":
            return (copies.transpose(1, 2) @ x.transpose(1, 2)).transpose(1, 2)
        return F.linear(x, self.weight[:, 0])


@pytest.mark.parametrize("how", ["bmm", "baddbmm", "weights first", "linear"])
def test_weights_that_are_expanded_to_the_samples_lie_in_one_matrix(how: str) -> None:
    """Each sample, in a batch of any size, meets the same cells."""
    model = Expanded(how).eval()
    converted = of.convert(model, HARDWARE, sample=TOKENS, level="noise")
    names = ["a", "b", "c"]
    x = torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), of.without_quantizers(converted):
        with of.samples(names):
            together = converted(x)
        for row, name in enumerate(names):
            with of.samples([name]):
                torch.testing.assert_close(converted(x[row : row + 1]), together[row : row + 1])
        assert not torch.allclose(together, model(x), rtol=1e-3)


class Around(nn.Module):
    """Attention between the tokens of two texts, the second of which comes from an attention of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = Scaled(), nn.Linear(24, 4)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        other = self.inner(other)
        y: Tensor = self.out((x @ other.transpose(1, 2) * 24**-0.5).softmax(dim=-1) @ other)
        return y


class Scaled(nn.Module):
    """Causal attention that scales and masks its scores step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(24, 72)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = (q @ k.transpose(1, 2)) * 24**-0.5
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(dim=-1) @ v


def test_attention_written_inside_a_module_that_writes_attention_too() -> None:
    """The scores of the inner module are followed once, not by the module around it as well."""
    torch.manual_seed(0)
    model, other = Around().eval(), torch.randn(2, 5, 24)
    converted = of.convert(model, HARDWARE, sample=(TOKENS, other))
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 2, "Q K": 2, "P V": 2}
    state = crossbars(converted).state
    assert {operand.name: getattr(operand, "causal", None) for operand in crossbars(converted).operands} == {
        "inner.qkv": None, "inner.K": True, "inner.V": True, ".K": False, ".V": False, "out": None
    }  # fmt: skip
    with torch.no_grad(), of.samples(range(2)), state.set_mode("ideal"):
        torch.testing.assert_close(converted(TOKENS, other), model(TOKENS, other))
