"""Padding changes no result at level `cell`, nor where reference columns serve several tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from ohmformer.hardware.ages import Ages, OperandAges
from tests.nn.models import Decoder

BASE = of.load("clipformer_tcad_2024")
TOKENS = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(1))
UNIFORM = {"kind": "uniform", "sigma": 0.05}
CIRCUITS = {"input_noise": 0.05, "output_noise": 0.01, "offset_mismatch": 0.01}
GIVEN = {"bits": "ideal", "range": {"kind": "given", "high": 0.4}}


class Encoder(nn.Module):
    """Attention with two heads in which all tokens see each other, with padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.qkv, self.out = nn.Embedding(20, 12), nn.Linear(12, 36), nn.Linear(12, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.words(input_ids)).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)).masked_fill(attention_mask[:, None, None] == 0, -1e9)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def hardware(**fields: Any) -> of.Accelerator:
    found = BASE
    basis = {"rows": 4, "columns": 4, "bits_per_cell": 8, "inputs.bits": 4, "cell.write_noise": UNIFORM}
    for engine in ("projection", "attention"):
        for name, value in {**basis, **fields}.items():
            found = of.replace(found, f"{engine}.array.{name}", value)
    return found


def called(model: nn.Module, tokens: Tensor, mask: Tensor, ids: list[int]) -> Tensor:
    with torch.no_grad(), of.samples(ids):
        return model(tokens, attention_mask=mask)  # type: ignore[no-any-return]


def ages(names: list[str], *, causal: bool) -> Ages:
    """Two queries at a time find the same ages, so that they are read together in some batches only."""
    number = np.arange(7.0)
    read = (number // 2 * 2 + 2) * 1e-6 if causal else np.full(7, 9e-6)
    more = {"written": np.zeros(7), "read": read, "rewritten": np.full(7, -np.inf), "causal": causal}
    roles = {"K": "attention.key", "V": "attention.value"}
    return Ages(tuple(OperandAges(name, roles[name[-1]], None, **more) for name in names))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "devices": ("cell", {"cell.read_noise": UNIFORM}),
    "devices and circuits": ("cell", {"cell.read_noise": UNIFORM, "adc": GIVEN, "peripherals": CIRCUITS}),
    "reference devices": ("cell", {"cell.read_noise": UNIFORM, "encoding": "offset"}),
    "reference columns": ("array", {"cell.read_noise": UNIFORM, "encoding": "offset"}),
    "reference circuits": ("array", {"encoding": "offset", "adc": GIVEN, "peripherals": CIRCUITS}),
    "reference converters": ("array", {"cell.read_noise": UNIFORM, "encoding": "offset", "adc": {"bits": 12}}),
}


@pytest.mark.parametrize(
    ("side", "causal", "aged"),
    [("left", True, False), ("right", False, False), pytest.param("left", True, True, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("level", "fields"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.slow if "circuits" in name else ())
        for name, case in CASES.items()
    ],
)
def test_padding_changes_nothing(level: Any, fields: dict[str, Any], side: str, causal: bool, aged: bool) -> None:
    drift = {"cell.drift": {"kind": "exponential", "tau": 2e-5, "tau_spread": 0.3}} if aged else {}
    model = (Decoder() if causal else Encoder()).eval().double()
    mask = torch.ones_like(TOKENS)
    sample = {"input_ids": TOKENS, "attention_mask": mask}
    machine = hardware(**drift, **fields)
    names = [f"layers.{layer}.{letter}" for layer in range(2) for letter in "KV"]
    when = ages(names, causal=causal) if aged else None
    converted = of.convert(model, machine, sample=sample, level=level, ages=when)
    tokens, mask, kept = TOKENS.clone(), mask.clone(), slice(3, 7) if side == "left" else slice(0, 4)
    tokens[1, kept], mask[1] = TOKENS[1, :4], 0
    mask[1, kept] = 1
    together = called(converted, tokens, mask, [4, 5, 6])[1:2, kept]
    alone = called(converted, TOKENS[1:2, :4], torch.ones(1, 4, dtype=torch.long), [5])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-9)


def test_a_reference_column_serves_a_first_token_as_it_serves_those_after_it() -> None:
    """Decoding that starts with one token writes the reference column of its array as one pass does."""
    machine = hardware(encoding="offset")
    model = of.convert(Decoder().eval().double(), machine, sample=TOKENS, level="noise")
    past: Any = []
    steps = []
    with torch.no_grad(), of.samples([4, 5, 6]), of.without_quantizers(model):
        whole = model(TOKENS)
        for n in range(TOKENS.shape[1]):
            logits, past = model(TOKENS[:, n : n + 1], past)
            steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-6, atol=1e-9)
