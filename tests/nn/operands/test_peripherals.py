"""Noise of drivers and converters in models: it belongs to tokens and samples, and training passes through it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer import Accelerator
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import Decoder

BASE = of.load("clipformer_tcad_2024")
TOKENS = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(1))
IDS = [7, "b", 9]
GIVEN = {"bits": "ideal", "range": {"kind": "given", "high": 0.3}}
CALIBRATED = {"bits": 8, "range": {"kind": "calibrated"}}
NOISE = {"input_noise": 0.05, "output_noise": 0.01}
ALL = {**NOISE, "gain_mismatch": 0.1, "offset_mismatch": 0.02}


def hardware(parts: dict[str, Any], adc: dict[str, Any] | None = None, **fields: Any) -> Accelerator:
    found = BASE
    for engine in ("projection", "attention"):
        changes = {"adc": adc or GIVEN, "peripherals": parts, "rows": 4, "columns": 4, **fields}
        for name, value in changes.items():
            found = of.replace(found, f"{engine}.array.{name}", value)
    return found


def full(model: nn.Module, tokens: Tensor = TOKENS, ids: list[Any] = IDS, **more: Any) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        y = model(tokens, **more)
    assert isinstance(y, Tensor)
    return y


def stepwise(model: nn.Module) -> Tensor:
    past: Any = []
    found = []
    with torch.no_grad(), of.samples(IDS):
        for start, stop in [(0, 3), *((n, n + 1) for n in range(3, TOKENS.shape[1]))]:
            logits, past = model(TOKENS[:, start:stop], past)
            found.append(logits)
    return torch.cat(found, dim=1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("kind", "parts"),
    [("bit_serial", ALL), ("amplitude", NOISE), ("integrated", NOISE)],
    ids=["all", "noise", "charge"],
)
@pytest.mark.parametrize(
    ("level", "adc"), [("array", GIVEN), pytest.param("noise", CALIBRATED, marks=pytest.mark.slow)]
)
def test_decoding_with_a_cache_equals_one_pass(
    level: Any, adc: dict[str, Any], parts: dict[str, Any], kind: str
) -> None:
    """Arrays of four rows: a new token may start a new block of rows of V."""
    machine = hardware(parts, adc, **{"inputs.kind": kind})
    model = of.convert(Decoder().eval(), machine, sample=TOKENS, level=level)
    with of.without_quantizers(model):
        noisy = full(model)
        assert relative(stepwise(model), noisy) < 1e-4
        clean = full(of.convert(Decoder().eval(), hardware({}, adc), sample=TOKENS, level=level))
        assert relative(noisy, clean) > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.slow
def test_padding_and_other_rows_change_nothing(side: str, fused: bool) -> None:
    model = of.convert(Decoder(fused=fused).eval(), hardware(ALL), sample=TOKENS, level="array")
    pad, mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(2, 9, dtype=torch.long)
    row = torch.cat([pad, TOKENS[:1, :6]] if side == "left" else [TOKENS[:1, :6], pad], dim=1)
    mask[0, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    with of.without_quantizers(model):
        alone = full(model, TOKENS[:1, :6], IDS[:1], attention_mask=torch.ones(1, 6, dtype=torch.long))
        padded = full(model, torch.cat([row, TOKENS[1:2]]), [IDS[0], "other"], attention_mask=mask)
    inner = padded[:1, 3:] if side == "left" else padded[:1, :6]
    assert relative(inner, alone) < 1e-4


class Encoder(nn.Module):
    """Attention in which all tokens see each other, with padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.qkv = nn.Embedding(20, 12), nn.Linear(12, 36)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.words(input_ids)).chunk(3, dim=-1)
        scores = q[:, None] @ k[:, None].transpose(-2, -1) / 3
        scores = scores.masked_fill(attention_mask[:, None, None] == 0, -1e9)
        return (scores.softmax(-1) @ v[:, None])[:, 0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_an_encoder_changes_nothing(side: str, exact: bool) -> None:
    ids, mask = TOKENS[:2], torch.ones(2, 9, dtype=torch.long)
    kept = slice(0, 5) if side == "right" else slice(4, 9)
    mask[1] = 0
    mask[1, kept] = 1
    machine = hardware(ALL)
    if exact:
        machine = of.replace(machine, "array.cell.write_noise", {"kind": "none"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", of.UnstableNoise)
        model = of.convert(Encoder().eval(), machine, sample=(ids, mask), level="array")
    with of.without_quantizers(model), torch.no_grad():
        with of.samples([4, 5]):
            together = model(ids, mask)
        with of.samples([5]):
            alone = model(ids[1:, kept], mask[1:, kept])
    torch.testing.assert_close(alone, together[1:, kept], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", ["array", "noise"])
@pytest.mark.slow
def test_gradients_pass(level: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    x = torch.randn(64, 8)
    model = of.convert(layer, hardware(ALL, CALIBRATED), sample=x, level=level)
    with of.samples(range(64)):
        model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.slow
def test_ranges_of_converters_are_calibrated_with_noise() -> None:
    x = torch.randn(500, 8)
    ranges = []
    for parts in ({}, {"output_noise": 0.1}):
        torch.manual_seed(0)
        model = of.convert(nn.Sequential(nn.Linear(8, 8)), hardware(parts, CALIBRATED), sample=x, level="array")
        (operand,) = crossbars(model).operands
        assert operand.adc_range is not None
        low, high = (torch.as_tensor(end) for end in operand.adc_range)
        ranges.append(high - low)
    assert bool((ranges[1] > 1.2 * ranges[0]).all())


@pytest.mark.parametrize("level", ["cell", "array", "noise"])
def test_integrated_inputs_compute_a_model(level: Any) -> None:
    """Only quantization is left, which is fine at eight bits."""
    torch.manual_seed(0)
    x = torch.randn(5, 8)
    layer = nn.Sequential(nn.Linear(8, 8))
    expected = layer(x)
    machine = hardware({}, {"bits": "ideal"}, **{"inputs.kind": "integrated"})
    machine = of.replace(machine, "projection.array.cell.write_noise", {"kind": "none"})
    model = of.convert(layer, machine, sample=x, level=level)
    with of.samples(range(5)), torch.no_grad():
        assert relative(model(x), expected) < 0.02
