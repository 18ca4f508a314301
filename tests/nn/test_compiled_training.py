"""Training steps with compiled kernels: their noise and their gradients are those of the plain code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.array.kernels.writes import cell_writes
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.base import AddedBias
from ohmformer.nn.operands.weight import WeightOperand
from tests.gpu.kernels import needs_numba
from tests.nn.models import vit
from tests.nn.test_variation import IMAGES, with_field

STRONG, WEAK = (with_field("cell.write_noise.gamma", gamma) for gamma in (40.0, 0.05))
"""Hardware whose cells need a number each, and hardware whose values need one."""


class Attention(nn.Module):
    """Attention of inputs, scaled by parameters: one head, and no other product."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.tensor([1.0, 0.5, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (scale * part for scale, part in zip(self.scales, x.split(8, dim=-1), strict=True))
        return nn.functional.scaled_dot_product_attention(q, k, v)


def stepped(hardware: of.Accelerator, attends: bool, seed: int = 3) -> list[Tensor]:
    """The output of a step, the second one of a seed, and the gradients of its inputs and parameters."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 9, 24, requires_grad=True)
    layer = Attention() if attends else nn.Linear(24, 40)
    model = of.convert(layer, hardware, sample=x.detach(), level="noise", kernels="compiled").train()
    with of.variation(model, seed=seed), of.samples(range(len(x))):
        model(x)
        y = model(x)
        y.square().sum().backward()
    return [y.detach(), *(t.grad for t in (x, *model.parameters()) if t.grad is not None)]


@needs_numba
@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("hardware", [STRONG, WEAK], ids=["a number for each cell", "one number for a value"])
def test_noise_and_gradients_are_those_of_the_plain_code(
    hardware: of.Accelerator, attends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding; of attention to 5 % of what another seed changes, since probabilities become codes again."""
    found, other = stepped(hardware, attends), stepped(hardware, attends, seed=4)
    monkeypatch.setattr(cell_writes, "fusible", lambda request, read_noise: False)
    plain = stepped(hardware, attends)
    assert len(found) == len(plain) == (3 if attends else 4)
    for a, b, of_other_seed in zip(found, plain, other, strict=True):
        noise, size = float((of_other_seed - b).norm()), float(b.norm())
        assert float((a - b).norm()) < (0.05 * noise if attends else 1e-5 * size)
    assert float((other[0] - plain[0]).norm()) > 1e-3 * float(plain[0].norm())


@needs_numba
def test_gradients_are_those_of_the_exact_product_with_what_cells_hold() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 7), torch.randn(4, 12)
    model = of.convert(layer, STRONG, sample=x, level="noise", kernels="compiled").train()
    x.requires_grad_()
    with of.variation(model):
        (model(x) * torch.arange(7.0)).sum().backward()
    (operand,) = crossbars(model).operands
    assert isinstance(operand, WeightOperand)
    held = operand.cells.cells.matrix  # type: ignore[union-attr]
    weight, bias = model.weight, model.bias
    assert not torch.allclose(held, weight, atol=1e-2)
    torch.testing.assert_close(x.grad, (torch.arange(7.0) @ held).expand(4, -1))
    torch.testing.assert_close(weight.grad, torch.outer(torch.arange(7.0), x.detach().sum(0)))
    torch.testing.assert_close(bias.grad, 4 * torch.arange(7.0))


def test_a_bias_that_is_added_in_place_has_the_gradients_of_a_sum() -> None:
    y = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, bias: AddedBias.apply(y * 1.0, bias).sin(), (y, bias))  # type: ignore[no-untyped-call]
    assert torch.autograd.gradgradcheck(lambda y, bias: AddedBias.apply(y * 1.0, bias).sin(), (y, bias))  # type: ignore[no-untyped-call]
    made = y * 1.0
    out = AddedBias.apply(made, bias)  # type: ignore[no-untyped-call]
    assert out.data_ptr() == made.data_ptr()


@needs_numba
def test_steps_draw_anew_and_a_seed_draws_the_same_again() -> None:
    assert torch.equal(stepped(STRONG, attends=False)[0], stepped(STRONG, attends=False)[0])
    model = of.convert(vit(), STRONG, sample=IMAGES, level="noise", kernels="compiled").train()
    with of.variation(model, gamma=(1.0, 2.0)):
        assert not torch.allclose(model(IMAGES), model(IMAGES), atol=1e-4)
