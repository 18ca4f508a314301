"""Results have the layout of the digital ones, so that `view` works; a bank serves a single token of each sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of

WRITE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
READ = of.replace(WRITE, "attention.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
READ = of.replace(READ, "projection.array.cell.read_noise", {"kind": "uniform", "sigma": 0.02})
NOT_CALLED = pytest.mark.filterwarnings("ignore::ohmformer.nn.convert.convert.StaysDigital")
HARDWARE = {"write": WRITE, "read": READ}
C = 16


class Viewing(nn.Module):
    """Calls `view` on results of products; x is [B, 4, C]."""

    def __init__(self, run: Callable[[Viewing, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(C, C), nn.Linear(C, C)
        self.conv1, self.conv2 = nn.Conv1d(C, C, 3, padding=1), nn.Conv2d(C, C, 2, padding=1)
        self.bank = nn.Parameter(torch.randn(2, C, C) / 4)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def heads_first(model: Viewing, x: Tensor, fused: bool) -> Tensor:
    """Attention whose first axis holds the heads."""
    B, N = x.shape[:2]
    q, k = (layer(x).view(B, N, 2, -1).permute(2, 0, 1, 3).contiguous() for layer in (model.first, model.second))
    p = (q @ k.transpose(-2, -1)).view(2 * B, N, N).softmax(dim=-1).view(2, B, N, N)
    y = F.scaled_dot_product_attention(q, k, k) if fused else p @ k
    return y.view(2 * B, N, -1).view(2, B, N, -1)[0]


def experts(model: Viewing, x: Tensor) -> Tensor:
    """Two experts that see all tokens of all samples."""
    tokens = x.reshape(1, -1, C).repeat(2, 1, 1)
    return torch.bmm(tokens, model.bank).view(-1, C).view(2, *x.shape).sum(dim=0)


def tokens_first(model: Viewing, x: Tensor) -> Tensor:
    y: Tensor = model.first(x.transpose(0, 1).contiguous())
    return y.view(-1, C).view(x.shape[1], -1, C).transpose(0, 1)


RUNS: dict[str, Callable[[Viewing, Tensor], Tensor]] = {
    "conv1d": lambda model, x: model.conv1(x.transpose(1, 2)).view(len(x), -1),
    "conv2d": lambda model, x: model.conv2(x.reshape(len(x), C, 2, 2)).view(len(x), -1),
    "weights on the left": lambda model, x: torch.matmul(model.bank[0], x.transpose(1, 2)).view(len(x), -1),
    "heads first": lambda model, x: heads_first(model, x, fused=False),
    "heads first, fused": lambda model, x: heads_first(model, x, fused=True),
    "tokens first": tokens_first,
    "experts": experts,
}


@NOT_CALLED
@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("name", RUNS)
def test_view_works_on_every_result(name: str, hardware: str) -> None:
    """And a sample has the noise of its name in any batch."""
    torch.manual_seed(0)
    model, x = Viewing(RUNS[name]).eval(), torch.randn(3, 4, C)
    converted = of.convert(model, HARDWARE[hardware], sample=x)
    with torch.no_grad(), of.without_quantizers(converted):
        with of.samples(["a", "b", "c"]):
            together = converted(x)
        with of.samples(["c"]):
            alone = converted(x[2:])
    torch.testing.assert_close(together[2:], alone, rtol=1e-5, atol=1e-5)


@NOT_CALLED
@pytest.mark.parametrize("B", [1, 2, 3])
def test_a_bank_serves_one_token_of_each_sample(B: int) -> None:
    """As many samples as matrices, and none of them is taken for the other."""
    torch.manual_seed(0)
    model, x = Viewing(experts).eval(), torch.randn(3, 4, C)
    converted = of.convert(model, READ, sample=x)
    quiet = of.convert(model, WRITE, sample=x)
    names, token = ["a", "b", "c"][:B], x[:B, :1]
    with torch.no_grad(), of.samples(names), of.without_quantizers(converted), of.without_quantizers(quiet):
        with_reads, without = converted(token), quiet(token)
    with torch.no_grad(), of.samples(names[-1:]), of.without_quantizers(converted):
        alone = converted(token[-1:])
    torch.testing.assert_close(with_reads[-1:], alone, rtol=1e-5, atol=1e-5)
    assert 0 < float((with_reads - without).norm() / without.norm()) < 0.2
