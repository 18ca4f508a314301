"""Models of Hugging Face whose keys and values age by their own timeline: decoding equals one pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from tests.nn.convert.test_generate import generated, llama, sliding
from tests.nn.operands.test_cross_attention import SOUND, SOURCE, TARGET, family

NOISY = {"kind": "uniform", "sigma": 0.05}
HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.scale", "token")
HARDWARE = of.replace(HARDWARE, "attention.array.cell.write_noise", NOISY)
DRIFTS = [{"kind": "exponential", "tau": 5e-6}, {"kind": "exponential", "tau": 5e-6, "tau_spread": 0.3}]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def aged(
    model: nn.Module, sample: dict[str, Tensor], drift: dict[str, Any], noise: dict[str, Any] = NOISY, **how: Any
) -> nn.Module:
    hardware = of.replace(HARDWARE, "attention.array.cell.drift", drift)
    hardware = of.replace(hardware, "attention.array.cell.write_noise", noise)
    first = {name: t[:1] for name, t in sample.items()}
    ages = of.simulate(of.trace(model, first, **how), hardware).timeline.ages()
    return of.convert(model, hardware, sample=sample, ages=ages, level="noise")


@pytest.mark.parametrize(
    ("drift", "noise"),
    [(DRIFTS[0], NOISY), (DRIFTS[1], NOISY), (DRIFTS[0], {"kind": "none"})],
    ids=["one factor", "spread", "silent"],
)
@pytest.mark.parametrize("make", [llama, sliding], ids=["llama", "sliding window"])
@pytest.mark.slow
def test_generated_tokens_and_left_padding(make: Any, drift: dict[str, Any], noise: dict[str, Any]) -> None:
    words = torch.randint(5, 20, (2, 16), generator=torch.Generator().manual_seed(0))
    model = aged(make(), {"input_ids": words}, drift, noise, phase="prefill")
    logits = generated(model, words[:, :8], [1, 2])
    ids = torch.cat([words[:, :8], logits.argmax(dim=-1)], dim=1)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, :3] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad(), of.without_quantizers(model):
        with of.samples([1, 2]):
            full = model(input_ids=ids, use_cache=False).logits
            padded = model(input_ids=words[:, :8], attention_mask=mask, position_ids=positions).logits
        with of.samples([1]):
            alone = model(input_ids=words[:1, 3:8]).logits
    assert relative(logits, full[:, 7:15]) < 1e-5
    assert relative(padded[0, 3:], alone[0]) < 1e-5


@pytest.mark.parametrize("name", ["Bart", "Whisper"])
@pytest.mark.slow
def test_a_decoder_reads_its_source_at_the_age_of_each_step(name: str) -> None:
    source = {"input_features": SOUND} if name == "Whisper" else {"input_ids": SOURCE}
    model = aged(family(name), {**source, "decoder_input_ids": TARGET}, DRIFTS[1])
    found, past, memory = [], None, None
    with torch.no_grad(), of.samples([1, 2, 3]), of.without_quantizers(model):
        full = model(**source, decoder_input_ids=TARGET, use_cache=False).logits
        for step in range(TARGET.shape[1]):
            given: dict[str, Any] = source if memory is None else {"encoder_outputs": (memory,)}
            token = TARGET[:, step : step + 1]
            output = model(**given, decoder_input_ids=token, past_key_values=past, use_cache=True)
            past, memory = output.past_key_values, output.encoder_last_hidden_state
            found.append(output.logits)
    assert relative(torch.cat(found, dim=1), full) < 1e-5
