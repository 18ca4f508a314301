"""Attention on crossbars against products of fake-quantized operands written out by hand, and its noise."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer import BadInput, KVClip
from ohmformer.hardware.spec import DigitalEngine
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.modules.attention import softmax
from ohmformer.nn.operands.kv import KVOperand
from tests.nn.models import SelfAttention, vit

HARDWARE = of.load("clipformer_tcad_2024")
QUIET = of.replace(
    of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0), "projection.array.cell.write_noise.gamma", 0.0
)
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def fake_quantized(t: Tensor, levels: int, top: Tensor) -> Tensor:
    return (t / top * levels).round().clamp(-levels, levels) / levels * top


def by_hand(model: SelfAttention, x: Tensor, scale: str = "tensor") -> Tensor:
    """softmax(Q K^T / sqrt(d)) V with 8-bit magnitudes of weights, K and V, signed 8-bit x and Q, unsigned 8-bit P."""
    x = fake_quantized(x, 127, TOKENS.abs().max())
    projected = []
    for layer in (model.q, model.k, model.v):
        y = x @ fake_quantized(layer.weight, 255, layer.weight.abs().max()).T + layer.bias
        projected.append(y.unflatten(-1, (model.heads, -1)).transpose(1, 2))
    q, k, v = projected
    # Ranges are calibrated on the exact model.
    exact = [
        (TOKENS.double() @ layer.weight.T + layer.bias).unflatten(-1, (model.heads, -1)).transpose(1, 2)
        for layer in (model.q, model.k)
    ]
    size = q.shape[-1] ** -0.5
    q = fake_quantized(q, 127, exact[0].abs().max())
    dims = {"tensor": (1, 2, 3), "head": (2, 3), "token": (3,)}[scale]
    k = fake_quantized(k, 255, k.abs().amax(dims, keepdim=True))
    p = (q @ k.transpose(-2, -1) * size).softmax(-1)
    p_top = (exact[0] @ exact[1].transpose(-2, -1) * size).softmax(-1).max()
    v_top = v.abs().amax(dims, keepdim=True)
    v = fake_quantized(v, 255, v_top)
    if scale == "token":
        # The row's own range scales the input of the row; ranges of inputs are calibrated without it.
        gain = (v_top / v_top.amax(-2, keepdim=True)).transpose(-2, -1)
        p = fake_quantized(p * gain, 255, p_top).clamp(0) / gain
    else:
        p = fake_quantized(p, 255, p_top).clamp(0)
    return (p @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("scale", ["tensor", "head", "token"])
@pytest.mark.parametrize("level", ["cell", "array", "noise"])
def test_without_noise_it_is_the_product_of_fake_quantized_operands(level: str, scale: str) -> None:
    torch.manual_seed(0)
    model = SelfAttention().double().eval()
    hardware = of.replace(QUIET, "attention.array.scale", scale)
    converted = of.convert(model, hardware, sample=TOKENS.double(), level=level)
    with torch.no_grad(), of.samples(range(3)):
        x = TOKENS.double() * 0.9
        expected, found = by_hand(model, x, scale), converted(x)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_padding_does_not_change_a_sample() -> None:
    torch.manual_seed(0)
    model = SelfAttention().eval()
    mask = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 5:] = False
    wild = TOKENS.clone()
    wild[1, 5:] *= 100
    converted = of.convert(model, QUIET, sample=(TOKENS, mask))
    with torch.no_grad(), of.samples(range(3)):
        assert torch.allclose(converted(wild, mask)[1, :5], converted(TOKENS, mask)[1, :5], atol=1e-5)


def test_rows_in_which_everything_is_masked_are_zero() -> None:
    scores, mask = torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    assert torch.equal(softmax(scores, mask), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(softmax(scores, mask[:1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(softmax(scores, None), scores.softmax(dim=-1))


def written(operand: KVOperand, tokens: Tensor) -> Tensor:
    """What the cells hold of tokens of an attention that is not causal."""
    with patch.object(operand, "multiply", wraps=operand.multiply) as multiply:
        operand.product(torch.zeros_like(tokens), tokens)
    return multiply.call_args.args[2].values  # type: ignore[no-any-return]


def noise_of(batch: int, threads: int = 1) -> dict[int, Tensor]:
    """What the cells hold of K of the first layer, by sample, computed in batches of a size."""
    held = {}
    x = torch.randn(32, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    noisy = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 4.0)
    converted = of.convert(vit(), noisy, sample=x[:4], level="noise")
    operand = next(o for o in crossbars(converted).operands if o.name == "blocks.0.attn.K")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for first in range(0, 32, batch):
            ids = list(range(first, min(32, first + batch)))
            with of.samples(ids):
                tokens = torch.stack([torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(i)) for i in ids])
                weight = written(operand, tokens)
            held.update(zip(ids, weight, strict=True))
    finally:
        torch.set_num_threads(before)
    return held


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (7, 1), (32, 2)])
def test_a_sample_draws_the_same_noise_in_any_batch(batch: int, threads: int) -> None:
    reference, found = noise_of(5), noise_of(batch, threads)
    assert all(torch.equal(reference[i], found[i]) for i in range(32))


def outputs(model: torch.nn.Module, ids: list[int | str], x: Tensor) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        return model(x)


def test_noise_belongs_to_sample_chip_and_seed() -> None:
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(1)).expand(2, -1, -1, -1)
    model = of.convert(vit(), of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 4.0), sample=x)
    first = outputs(model, [5, 6], x)
    assert not torch.allclose(first[0], first[1])
    assert torch.allclose(outputs(model, [6, 5], x), first.flip(0), atol=1e-5)
    of.set_chip(model, 1)
    assert not torch.allclose(outputs(model, [5, 6], x), first)
    of.set_chip(model, 0, seed=1)
    assert not torch.allclose(outputs(model, [5, 6], x), first)
    of.set_chip(model, 0, seed=0)
    assert torch.equal(outputs(model, [5, 6], x), first)


def test_a_plain_call_says_that_it_numbers_the_rows() -> None:
    model = of.convert(vit(), HARDWARE, sample=torch.randn(2, 1, 12, 12))
    with pytest.warns(UserWarning, match="samples 0..B-1"), torch.no_grad():
        model(torch.randn(2, 1, 12, 12))


def test_wrong_number_of_names_is_refused() -> None:
    model = of.convert(vit(), HARDWARE, sample=torch.randn(2, 1, 12, 12))
    with of.samples([1, 2, 3]), pytest.raises(BadInput, match="names 3 samples but the batch has 2 rows"):
        model(torch.randn(2, 1, 12, 12))


@pytest.mark.parametrize("arrays", ["shared", "per_layer"])
def test_faults_of_shared_arrays_are_those_of_every_layer(arrays: str) -> None:
    hardware = of.replace(QUIET, "attention.arrays", arrays)
    hardware = of.replace(hardware, "attention.array.cell.faults.stuck_at_g_max", 0.2)
    model = of.convert(vit(), hardware, sample=torch.randn(2, 1, 12, 12), level="noise")
    first, second = (o for o in crossbars(model).operands if o.name.endswith("attn.K"))
    tokens = torch.ones(1, 3, 10, 8)
    with of.samples([0]):
        a, b = (written(operand, tokens) for operand in (first, second))
    assert torch.equal(a, b) == (arrays == "shared")


def test_grad_flows_straight_through_everything() -> None:
    torch.manual_seed(0)
    model = SelfAttention()
    x = TOKENS.clone().requires_grad_()
    noisy = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.2)
    converted = of.convert(model, noisy, sample=TOKENS, clip=KVClip(alpha=0.0, beta=1.0))
    with of.samples(range(3)):
        converted(x).square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()} | {"x": x.grad.clone()}
    model.zero_grad()
    y = TOKENS.clone().requires_grad_()
    model(y).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()} | {"x": y.grad}
    for name, gradient in expected.items():
        cosine = torch.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.9 or gradient.norm() < 1e-4, name


def test_grad_of_a_linear_layer_is_that_of_what_the_cells_hold() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(9, 5, bias=False)
    x = torch.randn(4, 9, requires_grad=True)
    hardware = of.replace(HARDWARE, "projection.array.cell.write_noise.gamma", 20.0)
    converted = of.convert(layer, hardware, sample=x.detach())
    operand = crossbars(converted).operands[0]
    held = operand.written_cells(layer.weight.detach(), torch.float32, operand.state.use("", 1)).values
    grad = torch.randn(4, 5)
    with of.samples(range(4)):
        converted(x).backward(grad)
    assert torch.allclose(x.grad, grad @ held, atol=1e-6)
    assert torch.allclose(layer.weight.grad, grad.T @ x.detach(), atol=1e-6)


def test_calibrated_converters_cost_little_and_narrow_ones_much() -> None:
    torch.manual_seed(0)
    model, errors = SelfAttention().eval(), {}
    for name, adc in {
        "calibrated": {"bits": 8, "range": {"kind": "calibrated"}},
        "full scale": {"bits": 8},
        "narrow": {"bits": 8, "range": {"kind": "given", "high": 0.02}},
        "coarse": {"bits": 3},
    }.items():
        hardware = of.replace(of.replace(QUIET, "attention.array.adc", adc), "projection.array.adc", adc)
        converted = of.convert(model, hardware, sample=TOKENS)
        with torch.no_grad(), of.samples(range(3)):
            errors[name] = float((converted(TOKENS) - model(TOKENS)).norm() / model(TOKENS).norm())
    assert max(errors["full scale"], errors["calibrated"]) < 0.02
    assert min(errors["coarse"], errors["narrow"]) > 0.1


def test_digital_engines_leave_attention_exact() -> None:
    torch.manual_seed(0)
    hardware = QUIET.model_copy(update={"attention": QUIET.attention.model_copy(update={"key": DigitalEngine()})})
    table = of.capture_table(of.convert(SelfAttention(), hardware, sample=TOKENS))
    assert [(row.product, row.reason) for row in table.digital] == [("Q K", "by hardware")]
