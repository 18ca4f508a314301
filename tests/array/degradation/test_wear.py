"""Worn arrays against an independent program that writes device by device, at every level; and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ohmformer.array import fold, held_moments, mvm, program, write, write_folded
from ohmformer.array.gaussian_writes.one_number import writable
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import exact, one_sided
from ohmformer.errors import BadInput
from ohmformer.schema import validate
from ohmformer.streams import Stream
from tests.build import array, cell

WEAR: dict[str, Any] = {"kind": "weibull", "shape": 1.4, "stuck_at_g_max": 0.35, "w": 0.06, "n0": 2e3}
NOISE = {"kind": "proportional", "sigma": 0.07}
G_MIN, G_MAX, ENDURANCE, PULSES = 4e-7, 8e-6, 5e5, 2
CHIP = Stream(4, "chip", 2)


def hardware(writes: float = 1.5e5, **fields: Any) -> Crossbar:
    of_cell = {"g_min": G_MIN, "g_max": G_MAX, "endurance": ENDURANCE, "write_pulses": PULSES, "wear": WEAR}
    of_cell |= {"write_noise": NOISE, **fields.pop("cell", {})}
    return array(**{"rows": 32, "columns": 32, "writes": writes, "cell": cell(**of_cell), **fields})


def device_by_device(digit: int, writes: float, moves: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Digits that n worn cells hold, from the formulas alone: the window, the noise at the saturated target, stuck."""
    span, pulses = G_MAX - G_MIN, writes * PULSES
    loss = 0.06 * math.log10(1 + pulses / 2e3)
    low, high = {"top": (0, 1 - loss), "bottom": (loss, 1), "both": (loss / 2, 1 - loss / 2)}[moves]
    target = min(max(G_MIN + span * digit / 3, G_MIN + low * span), G_MIN + high * span)
    g = np.maximum(0.0, target * (1 + 0.07 * rng.standard_normal(n)))
    stuck = rng.random(n) < 1 - math.exp(-((pulses / ENDURANCE) ** 1.4))
    g[stuck] = np.where(rng.random(stuck.sum()) < 0.35, G_MAX, G_MIN)
    return (g - G_MIN) / (span / 3)


@pytest.mark.parametrize("moves", ["top", "bottom", "both"])
@pytest.mark.parametrize("writes", [2e4, 1.5e5])
def test_worn_cells_hold_what_a_program_of_single_devices_gives(moves: str, writes: float) -> None:
    """Kolmogorov-Smirnov for every digit, in cells of 2 bits; each rejects a true hypothesis with probability 1e-6."""
    worn = hardware(writes, bits=2, cell={"wear": {**WEAR, "moves": moves}})
    rng = np.random.default_rng(3)
    for digit in range(4):
        held = write(torch.full((160, 160), float(digit)), worn, stream=Stream(digit), fault_stream=CHIP)
        found = held.digits[0, 0].double().flatten().numpy()
        expected = device_by_device(digit, writes, moves, 200_000, rng)
        assert stats.ks_2samp(found, expected).pvalue > 1e-6
        assert abs(found.mean() - expected.mean()) < 5.5 * expected.std() * math.sqrt(1 / found.size + 1 / 2e5)  # 4e-8


@pytest.mark.parametrize("level", ["cell", "array", "noise"])
def test_products_of_worn_arrays_follow_single_devices_at_every_level(level: Any) -> None:
    """Products of one driven row with values of four slices; a Kolmogorov-Smirnov test at probability 1e-6."""
    worn, code = hardware(bits=8), 0b10011101
    w, x = torch.full((4000, 1), code / 255), torch.ones(1, 1)
    held = program(w, worn, w_range=1.0, stream=Stream(9), fault_stream=CHIP)
    found = mvm(x, held, level=level, x_range=1.0).flatten().double().numpy()
    rng, total = np.random.default_rng(8), np.zeros(100_000)
    for s in range(4):
        used = device_by_device(code >> 2 * s & 3, 1.5e5, "top", 100_000, rng)
        total += 4**s * (used - device_by_device(0, 1.5e5, "top", 100_000, rng))
    assert stats.ks_2samp(found, total / 255).pvalue > 1e-6


def test_a_chip_only_gets_worse_and_its_stuck_cells_stay() -> None:
    codes = torch.randint(-255, 256, (64, 64), generator=torch.Generator().manual_seed(0)).float()
    quiet = {"write_noise": {"kind": "none"}, "wear": {**WEAR, "w": None, "n0": None}}
    new = write(codes, hardware(0.0, cell=quiet), fault_stream=CHIP).digits
    before = torch.zeros_like(new, dtype=torch.bool)
    for writes in (1e4, 5e4, 1e5, 2e5, 5e5, 1e6):
        held = write(codes, hardware(writes, cell=quiet), fault_stream=CHIP).digits
        wrong = held != new
        assert bool((wrong | ~before).all()), "a cell that is wrong stays wrong"
        assert int(wrong.sum()) > int(before.sum())
        before = wrong


def test_new_cells_hold_the_same_bits_as_cells_without_wear() -> None:
    codes = torch.randint(-255, 256, (40, 50), generator=torch.Generator().manual_seed(0)).float()
    fault = {"stuck_at_g_min": 0.02, "stuck_at_g_max": 0.01}
    plain = array(rows=32, columns=32, cell=cell(g_min=G_MIN, g_max=G_MAX, write_noise=NOISE, faults=fault))
    for function in (write_folded, lambda *a, **k: fold(write(*a, **k))):
        a = function(codes, hardware(0.0, cell={"faults": fault}), stream=Stream(1), fault_stream=CHIP)
        b = function(codes, plain, stream=Stream(1), fault_stream=CHIP)
        assert torch.equal(a.values, b.values)


@pytest.mark.slow
def test_closed_forms_hold_for_worn_cells() -> None:
    """Mean and variance of every tenth code from 4,000 draws, within 6 standard errors (1e-7 for 26 codes)."""
    worn = hardware(bits=8)
    mean, variance = held_moments(worn)
    for code in range(5, 256, 10):
        held = fold(write(torch.full((400, 400), float(code)), worn, stream=Stream(code), fault_stream=CHIP)).values
        drawn = held.double().flatten() * 255
        assert abs(float(drawn.mean() - mean[code])) < 6 * math.sqrt(float(variance[code]) / drawn.numel())
        assert float(drawn.var() / variance[code]) == pytest.approx(1, abs=0.05)


def test_shortcuts_know_of_wear() -> None:
    silent = {"write_noise": {"kind": "none"}}
    assert exact(hardware(0.0, cell=silent))
    assert one_sided(hardware(0.0, cell=silent))
    window = {**silent, "endurance": math.inf}
    for moves, half in (("top", True), ("bottom", False)):
        worn = hardware(cell={**window, "wear": {**WEAR, "moves": moves}})
        assert not exact(worn)
        assert not writable(worn)
        assert one_sided(worn) == half
        both = write(torch.tensor([[-255.0, 0.0, 255.0]]), worn)
        assert float(both.digits[0].max()) < 3 or moves == "bottom"
        assert torch.equal(fold(both).values, write_folded(torch.tensor([[-255.0, 0.0, 255.0]]), worn).values)


@pytest.mark.parametrize("encoding", ["differential", "offset"])
def test_uneven_levels_and_reference_columns_saturate_too(encoding: str) -> None:
    fields: dict[str, Any] = {"write_noise": {"kind": "none"}, "endurance": math.inf}
    if encoding == "differential":
        fields["level_conductances"] = [G_MIN, 1e-6, 3e-6, G_MAX]
    worn = hardware(cell=fields, encoding=encoding)
    top = worn.cell.window(worn.writes)[1]
    held = write(torch.tensor([[worn.max_code]]).float(), worn)
    assert float(held.digits.max()) == pytest.approx(3 * top, rel=1e-5)
    if held.reference is not None:
        assert float(held.reference.max()) <= 3 * top * (1 + 1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cell": cell()}, "writes = 10: change nothing, since the cell has no wear; give cell.wear"),
        ({"writes": -1}, "writes"),
        ({"writes": math.nan}, "writes"),
        ({"writes": "many"}, "writes"),
        ({"writes": True}, "writes"),
        (
            {"writes": 1e19, "cell": cell(endurance=1e6, wear={**WEAR, "w": 0.3})},
            r"writes = 1e\+19: wear leaves no window between g_min and g_max .* lower writes",
        ),
        (
            {
                "write_verify": {"writes": 3, "tolerance": 0.1},
                "cell": cell(endurance=1e6, wear=WEAR, write_noise=NOISE),
            },
            "write_verify: after writes = 10 a cell reaches a part of its range only",
        ),
    ],
)
def test_writes_that_cannot_be_honored_are_refused(fields: dict[str, Any], message: str) -> None:
    basis = {"rows": 8, "columns": 8, "writes": 10, "cell": cell(endurance=1e6, wear=WEAR)}
    with pytest.raises(BadInput, match=message):
        validate(Crossbar, {**basis, **fields}, where="array")
