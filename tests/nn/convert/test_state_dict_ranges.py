"""Calibrated ranges travel with the state dictionary."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from tests.nn.modules.test_structure import HARDWARE, Model, X

pytestmark = pytest.mark.filterwarnings("ignore::ohmformer.UnnamedSamples")
ADC = of.replace(HARDWARE, "projection.array.adc.bits", 6)


class Attention(nn.Module):
    """One head of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in "qkv")

    def forward(self, x: Tensor) -> Tensor:
        """x[B, N, 8] -> [B, N, 8]."""
        q, k, v = self.q(x)[:, None], self.k(x)[:, None], self.v(x)[:, None]
        return nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]


def pair(cls: type[nn.Module], hardware: of.Accelerator) -> tuple[Any, Any]:
    """The same model converted on two samples, so with other ranges."""
    torch.manual_seed(0)
    model = cls().eval()
    return tuple(of.convert(model, hardware, sample=x) for x in (X, 5 * X))  # type: ignore[return-value]


@pytest.mark.parametrize("hardware", [HARDWARE, ADC], ids=["ideal", "adc"])
@pytest.mark.parametrize("cls", [Model, Attention])
def test_ranges_survive(cls: type[nn.Module], hardware: of.Accelerator) -> None:
    """A model that loads a state dictionary computes to the bit what the model that gave it computes."""
    first, second = pair(cls, hardware)
    of.calibrate_ranges(first, [2 * X])
    assert not torch.equal(first(X), second(X))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(first(X), second(X))
    assert torch.equal(copy.deepcopy(second)(X), first(X))


def test_other_wrappers() -> None:
    """Ranges also travel inside a larger model, and in a plain dictionary of cloned tensors."""
    first, second = (nn.ModuleDict({"part": model}) for model in pair(Model, HARDWARE))
    second.load_state_dict({name: t.clone() for name, t in first.state_dict().items()})
    assert torch.equal(first["part"](X), second["part"](X))


def test_digital_state_changes_no_range() -> None:
    """The dictionary of a digital model loads strictly, and ranges stay; `revert` gives one without ranges."""
    first, second = pair(Model, HARDWARE)
    expected = second(X)
    digital = of.revert(first).state_dict()
    assert not any("ohmformer" in name for name in digital)
    second.load_state_dict(digital, strict=True)
    assert torch.equal(second(X), expected)


@pytest.mark.parametrize("damage", ["unknown", "shape", "nan", "negative", "text", "operand"])
def test_ranges_of_another_conversion(damage: str) -> None:
    """Ranges that do not fit are refused as a whole."""
    first, second = pair(Attention, HARDWARE)
    expected, state = second(X), first.state_dict()
    key = next(name for name in state if name.endswith("/x_range") and ".K" not in name)
    match damage:
        case "unknown":
            state[key.replace("x_range", "adc_low")] = state[key]
        case "shape":
            state[key] = torch.ones(3)
        case "nan":
            state[key] = state[key] * torch.nan
        case "negative":
            state[key] = -state[key]
        case "text":
            state[key] = "wide"
        case "operand":
            state["ohmformer_ranges.other/x_range"] = state[key]
    with pytest.raises(RuntimeError, match=r"ranges of .* are those of another conversion"):
        second.load_state_dict(state)
    assert torch.equal(second(X), expected)


def test_a_dictionary_without_some_of_the_ranges_says_so() -> None:
    first, second = pair(Attention, HARDWARE)
    state = first.state_dict()
    key = next(name for name in state if name.endswith("/x_range") and ".K" not in name)
    del state[key]
    with pytest.raises(RuntimeError, match=rf"Missing key.*{key}"):
        second.load_state_dict(state)
    assert second.load_state_dict(state, strict=False).missing_keys == [key]


def test_conditioned_ranges() -> None:
    """What `calibrate` fitted travels too, between models with the same conditioning."""
    first, second = pair(Attention, HARDWARE)
    for model in (first, second):
        of.set_kv(model, of.Conditioning(mean=True))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(X), second(X))


def test_types_must_agree() -> None:
    """A converted layer refuses inputs of another type, as its digital layer does; autocast is left alone."""
    model, _ = pair(Model, HARDWARE)
    for dtype in (torch.bfloat16, torch.float64):
        with pytest.raises(of.BadInput, match="give both the same type"):
            model(X.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(X)


def test_arguments_beside_a_configuration() -> None:
    """Every argument beside a configuration is refused, also one that says the default."""
    config = of.ConvertConfig(hardware=HARDWARE)
    for argument in ({"seed": 0}, {"chip": 0}, {"level": "array"}, {"rules": {}}, {"weights": of.WeightMitigation()}):
        with pytest.raises(of.BadInput, match="a ConvertConfig holds"):
            of.convert(Model(), config, sample=X, **argument)


def test_the_state_dictionary_after_revert_is_that_of_the_plain_model() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    converted = of.convert(model, HARDWARE, sample=X)
    assert set(converted.state_dict()) > set(model.state_dict())
    plain = of.revert(converted).state_dict()
    assert set(plain) == set(model.state_dict())
    Model().load_state_dict(plain)
