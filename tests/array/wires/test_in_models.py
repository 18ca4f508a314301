"""Losses in wires beside everything else that acts on cells: faults, drift, read noise, caches, training, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ohmformer as of

WIRES = {"row": 200.0, "column": 300.0, "driver": 2000.0, "ir_drop": "first_order"}
AGING: dict[str, Any] = {
    "cell.faults": {"kind": "stuck_at", "stuck_at_g_min": 0.02, "stuck_at_g_max": 0.01},
    "cell.read_noise": {"kind": "uniform", "sigma": 0.02},
    "cell.drift": {"kind": "power_law", "t0": 1.0, "nu": 0.06, "nu_std": 0.02},
    "age": 1e4,
}


def converted(model: nn.Module, sample: Any, level: str = "array", **changes: Any) -> nn.Module:
    hardware = of.load("clipformer_tcad_2024")
    for role in ("projection", "attention"):
        for path, value in {"size": 16, "wires": WIRES, **changes}.items():
            hardware = of.replace(hardware, f"{role}.array.{path}", value)
    result: nn.Module = of.convert(model, hardware, sample=sample, level=level)  # type: ignore[arg-type]
    return result


def decoder() -> tuple[nn.Module, torch.Tensor]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    return transformers.GPT2LMHeadModel(config).eval(), torch.randint(0, 50, (1, 20))


@pytest.mark.parametrize("how", ["first_order", "sweeps"])
def test_decoding_with_a_cache_is_one_pass_with_faults_and_drift(how: str) -> None:
    """The cells of all tokens are found again, and what wires lose follows from them."""
    model, ids = decoder()
    still = {path: value for path, value in AGING.items() if path != "cell.read_noise"}
    crossbars = converted(model, ids, "noise", **still, wires=WIRES | {"ir_drop": how})
    with torch.no_grad(), of.samples(["text"]):
        whole = crossbars(ids[:, :12]).logits[:, -1]
        first = crossbars(ids[:, :11], use_cache=True)
        step = crossbars(ids[:, 11:12], past_key_values=first.past_key_values).logits[:, -1]
    torch.testing.assert_close(step, whole, rtol=1e-4, atol=1e-4)


def test_a_saved_model_is_restored_to_the_bit(tmp_path: Path) -> None:
    model, ids = decoder()
    crossbars = converted(model, ids, **AGING)
    with torch.no_grad(), of.samples(["text"]):
        before = crossbars(ids).logits
        of.save(crossbars, str(tmp_path / "model.pt"))
        restored = of.restore(decoder()[0], str(tmp_path / "model.pt"))
        assert torch.equal(restored(ids).logits, before)


def test_training_steps_on_lossy_aged_cells_have_finite_gradients() -> None:
    model, ids = decoder()
    crossbars = converted(model, ids, "noise", **AGING)
    crossbars.train()
    with of.variation(crossbars):
        losses = [crossbars(ids, labels=ids).loss for _ in range(2)]
    losses[0].backward()
    gradients = [p.grad for p in crossbars.parameters() if p.grad is not None]
    assert len(gradients) > 10
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert losses[0] != losses[1]


def test_losses_in_wires_reduce_currents_of_every_kind_of_cell() -> None:
    model, ids = decoder()
    with torch.no_grad(), of.samples(["text"]):
        digital = model(ids).logits
        quiet = {"cell.write_noise": {"kind": "none"}}
        near, far = (
            (converted(decoder()[0], ids, "noise", **quiet, wires=wires)(ids).logits - digital).norm()
            for wires in ({"row": 1.0, "column": 1.0}, {"row": 100.0, "column": 100.0})
        )
    assert 0 < near < far
