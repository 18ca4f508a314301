"""Weights that are exchanged or computed after conversion are used, in convolutions and by hand as in linear layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.shared.weight_fingerprints import checksum

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "projection.array.cell.write_noise.gamma", 0.0)
IMAGES = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))


class ByHand(nn.Module):
    """A layer that multiplies by itself, with weights [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hand, self.linear = nn.Conv2d(4, 6, 3), ByHand(), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.hand(self.conv(x).flatten(2).transpose(1, 2).contiguous()))


class Less(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 0.7 * w


def _restrided(layer: nn.Module) -> None:
    layer.weight.data = 0.7 * layer.weight.data.transpose(0, 1).contiguous().transpose(0, 1)  # type: ignore[union-attr,operator]


CHANGES: dict[str, Callable[[Any], object]] = {
    "l1": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
    "random": lambda layer: prune.random_unstructured(layer, "weight", amount=0.3),
    "structured": lambda layer: prune.ln_structured(layer, "weight", amount=0.3, n=2, dim=0),
    "mask": lambda layer: prune.custom_from_mask(layer, "weight", torch.ones_like(layer.weight).tril()),
    "removed": lambda layer: prune.remove(prune.l1_unstructured(layer, "weight", amount=0.3), "weight"),
    "bias": lambda layer: prune.l1_unstructured(layer, "bias", amount=0.3),
    "parametrized": lambda layer: parametrize.register_parametrization(layer, "weight", Less()),
    "weight norm": parametrizations.weight_norm,
    "weight norm by hooks": torch.nn.utils.weight_norm,
    "parameter": lambda layer: setattr(layer, "weight", nn.Parameter(0.7 * layer.weight.detach())),
    "data": lambda layer: setattr(layer.weight, "data", 0.7 * layer.weight.data),
    "strides": _restrided,
    "state": lambda layer: layer.load_state_dict({name: 0.7 * t for name, t in layer.state_dict().items()}),
}


def models() -> tuple[nn.Module, nn.Module]:
    """A model, and one of the same values on crossbars."""
    torch.manual_seed(0)
    model = Layers().eval()
    return model, of.convert(copy.deepcopy(model), HARDWARE, sample=IMAGES)


def answer(model: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.no_grad(), of.samples(range(3)):
        return model(IMAGES)


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).norm()) < 0.02 * float(expected.norm())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_used(name: str) -> None:
    digital, converted = models()
    before = answer(converted)
    for model in (digital, converted):
        for layer in model.children():
            torch.manual_seed(1)
            CHANGES[name](layer)
    found = answer(converted)
    assert close(found, answer(digital))
    assert "norm" in name or not close(found, before)
    assert torch.equal(answer(copy.deepcopy(converted)) if "hooks" not in name else found, found)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_functional_calls_use_what_they_are_given(layout: torch.memory_format) -> None:
    digital, converted = models()
    given = {name: 0.7 * t.detach() for name, t in digital.named_parameters()}
    given["conv.weight"] = given["conv.weight"].contiguous(memory_format=layout)
    found = answer(lambda x: torch.func.functional_call(converted, given, (x,)))
    assert close(found, answer(lambda x: torch.func.functional_call(digital, given, (x,))))
    assert not close(found, answer(converted))


def test_a_model_in_another_memory_format_goes_on() -> None:
    digital, converted = models()
    assert close(answer(converted.to(memory_format=torch.channels_last)), answer(digital))


def test_a_changed_forward_is_named_as_a_cause() -> None:
    _, converted = models()
    converted.hand.forward = lambda x: x @ converted.hand.weight  # type: ignore[method-assign,operator]
    with pytest.raises(BadInput, match="hand has another forward since the model was converted"):
        answer(converted)  # nothing would intercept it

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.more = nn.Parameter(torch.randn(4, 5)), False

        def forward(self, x: Tensor) -> Tensor:
            y = x @ self.weight
            return y @ y.transpose(-2, -1) if self.more else y

    converted = of.convert(Twice(), HARDWARE, sample=IMAGES[:, 0, :, :4])
    converted.more = True
    with pytest.raises(BadInput, match=r"or, if set_attn_implementation, get_peft_model, torch.jit.trace"):
        converted(IMAGES[:, 0, :, :4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 3, 64, 1025])
def test_a_checksum_sees_a_change_of_any_one_weight(dtype: torch.dtype, size: int) -> None:
    w = torch.randn(size + 1, generator=torch.Generator().manual_seed(size)).to(dtype)[1:]  # not aligned to 8 bytes
    before = checksum(w)
    assert checksum(w.clone()) == before == checksum(torch.stack([w, w], dim=1)[:, 0])
    for place in {0, size // 2, size - 1}:
        for change in (Tensor.neg, lambda v: torch.nextafter(v.double(), v.double() * 2).to(dtype) * 1.01):
            changed = w.clone()
            changed[place] = change(changed[place])
            assert checksum(changed) != before


def test_a_change_of_one_weight_behind_the_version_counter_is_used() -> None:
    model = nn.Sequential(nn.Linear(40, 40))
    x = torch.randn(2, 40)
    converted = of.convert(model, HARDWARE, sample=x, level="noise")
    with torch.no_grad(), of.samples(range(2)):
        before = converted(x)
        assert torch.equal(converted(x), before)
        converted[0].weight.data[17, 23] = 0.5 + converted[0].weight.data[17, 23].abs().neg()  # type: ignore[index]
        assert not torch.equal(converted(x), before)
