"""Models whose cells correct one another: caches, levels, gradients, conditionings, calibration and costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer.nn.calibration.calibrate import set_kv
from ohmformer.nn.calibration.expected_error import expected_error
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from tests.nn.models import Decoder
from tests.nn.operands.test_kv_cache import NOISY, TOKENS, converted, full, relative, stepwise


def hardware(residual: dict[str, Any] | None, place: str = "attention", **fields: Any) -> of.Accelerator:
    changed = of.replace(NOISY, f"{place}.array.radix", 2)
    for path, value in fields.items():
        changed = of.replace(changed, f"{place}.array.{path}", value)
    return of.replace(changed, f"{place}.array.residual", residual)


READS = {"kind": "uniform", "sigma": 0.05}


@pytest.mark.parametrize("level", ["noise", "array"])
@pytest.mark.parametrize("scale", ["tensor", "token"])
@pytest.mark.parametrize("bits", ["ideal", 5])
@pytest.mark.slow
def test_a_cache_gives_what_one_pass_gives(bits: Any, scale: str, level: str) -> None:
    noisy = hardware({"bits": bits}, **({} if bits == "ideal" else {"cell.read_noise": READS}))
    once, steps = (run(converted(noisy, scale, level=level)) for run in (full, stepwise))
    assert relative(steps, once) < 1e-5


def test_keys_and_values_come_nearer_to_those_of_software() -> None:
    digital = full(converted(of.replace(NOISY, "attention.array.cell.write_noise", {"kind": "none"})))
    plain, residual = (full(converted(hardware(how), "token")) for how in (None, {}))
    assert relative(residual, digital) < 0.5 * relative(plain, digital)


def test_a_sample_is_the_same_in_a_batch_and_alone() -> None:
    model = converted(hardware({"bits": 6}, **{"cell.read_noise": READS}), "token")
    assert relative(full(model, TOKENS[1:2], ["b"]), full(model)[1:2]) < 1e-5


def test_padding_changes_nothing() -> None:
    model = converted(hardware({"bits": 6}, **{"cell.read_noise": READS}), "token")
    padded = torch.cat([TOKENS.new_zeros(3, 2), TOKENS], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :2] = 0
    assert relative(full(model, padded, attention_mask=mask)[:, 2:], full(model)) < 1e-5


def test_levels_differ_by_converters_and_reads_alone() -> None:
    """Cells are written alike at every level; reads are exact, and so are ideal converters."""
    exact = hardware({"bits": 5}, **{"adc.bits": "ideal"})
    by_level = [full(converted(exact, level=level), TOKENS[:, :4]) for level in ("cell", "array", "noise")]
    assert relative(by_level[0], by_level[2]) < 1e-4
    assert relative(by_level[1], by_level[2]) < 1e-4


def test_static_weights_are_written_residually() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(40, 30), torch.randn(50, 40)
    strong = {"cell.write_noise": {"kind": "sqrt_range", "gamma": 4.0, "sigma": 0.1}}
    errors = []
    for residual in (None, {}):
        machine = hardware(residual, "projection", **strong)
        model = of.convert(layer, machine, sample=x, level="noise")
        with torch.no_grad():
            errors.append(relative(model(x), layer(x)))
    assert errors[1] < 0.6 * errors[0]


def test_gradients_pass_at_what_cells_hold() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(12, 7, bias=False), torch.randn(4, 12)
    model = of.convert(layer, hardware({}, "projection"), sample=x, level="noise")
    x.requires_grad_()
    y = model(x)
    y.sum().backward()
    (operand,) = crossbars(model).operands
    assert torch.allclose(x.grad, operand.cells.cells.values.sum(0).expand(4, -1), rtol=1e-5)  # type: ignore[union-attr]
    weight = next(model.parameters())
    assert weight.grad is not None
    assert torch.allclose(weight.grad, x.detach().sum(0).expand(7, -1), rtol=1e-5)


def test_without_quantizers_cells_are_written_at_once() -> None:
    residual, plain = (converted(hardware(how)) for how in ({}, None))
    for model in (residual, plain):
        crossbars(model).state.rounded = False
    assert torch.equal(full(residual), full(plain))


def test_a_conditioning_turns_it_on() -> None:
    model, plain = converted(hardware(None)), converted(hardware({}, scale="token"))
    set_kv(model, of.Conditioning(scale="token", residual={}))
    set_kv(plain, of.Conditioning(scale="token"))
    assert torch.equal(full(model), full(plain))
    with pytest.raises(of.BadInput, match=r"unbiased: residual writing chooses digits"):
        of.Conditioning(unbiased=True, residual={})
    with pytest.raises(of.BadInput, match=r"kv.unbiased: residual writing chooses digits"):
        set_kv(plain, of.Conditioning(unbiased=True))
    offset = converted(of.replace(NOISY, "attention.array.encoding", "offset"))
    with pytest.raises(of.BadInput, match=r"kv.*residual: an 'offset' array"):
        set_kv(offset, of.Conditioning(residual={}))


def test_calibration_knows_the_error() -> None:
    """The expected error of V is that of 50 chips, within 5 standard errors."""
    model = converted(hardware({}), "token")
    handle = crossbars(model)
    with torch.no_grad(), of.samples([0, 1, 2]), handle.state.set_mode("observe tokens"):
        model(TOKENS)
    for operand in handle.operands:
        if not isinstance(operand, KVOperand) or operand.axis != "V":
            continue
        stated = float(expected_error(operand, operand.watched).mean())
        seen = operand.watched[0]
        found = []
        for chip in range(50):
            handle.state.chip = chip
            with torch.no_grad(), of.samples([0, 1, 2]):
                y = operand.product(seen.x, seen.tokens)
            found.append(float((y - seen.x @ seen.tokens).square().mean()))
        error = torch.tensor(found)
        assert abs(float(error.mean()) - stated) < 5 * float(error.std()) / 50**0.5
        operand.watched.clear()


def test_calibrate_runs_and_keeps_what_helps() -> None:
    model = converted(hardware({}))
    result = of.calibrate(model, [{"input_ids": TOKENS[:, :5]}, {"input_ids": TOKENS[:, 3:]}], remedy=["hadamard"])
    assert set(result.losses) == {"none", "hadamard"}


@pytest.mark.parametrize("level", ["noise", "array"])
@pytest.mark.slow
def test_tokens_that_age_are_written_once(level: str) -> None:
    """Decoding token by token equals one pass where drift follows the timeline."""
    machine = hardware({"bits": 6}, **{"cell.read_noise": READS, "scale": "token"})
    machine = of.replace(machine, "attention.array.cell.drift", {"kind": "exponential", "tau": 5e-6, "tau_spread": 0.3})
    ages = of.simulate(of.trace(Decoder().eval(), TOKENS[:1], phase="prefill"), machine).timeline.ages()
    once, steps = (
        run(of.convert(Decoder().eval(), machine, sample=TOKENS, level=level, ages=ages)) for run in (full, stepwise)
    )
    assert relative(steps, once) < 1e-5
    new = full(of.convert(Decoder().eval(), machine, sample=TOKENS, level=level))
    assert relative(once, new) > 1e-3
