"""Values by hand: ideal circuits, integrated inputs, curved cells, mismatch and its calibration, and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ohmformer.array import mvm, program
from ohmformer.array.calibrate_adc import column_percentiles
from ohmformer.array.crossbar import write
from ohmformer.array.folded import fold
from ohmformer.array.peripherals.mismatch import GAIN, OFFSET, calibrated
from ohmformer.array.peripherals.spec import MismatchCalibration, Peripherals
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.schema import replace
from ohmformer.streams import SampleStreams, Stream
from tests.build import PROPORTIONAL, UNIFORM, array, cell

LEVELS: tuple[Any, ...] = ("cell", "array", "noise")
W = torch.randint(-255, 256, (5, 20), generator=torch.Generator().manual_seed(1)).double()
X = torch.randint(-127, 128, (3, 20), generator=torch.Generator().manual_seed(2)).double()
GIVEN = {"kind": "given", "high": 0.5}


def results(hardware: Crossbar, *, x: torch.Tensor = X, w: torch.Tensor = W, **options: Any) -> list[torch.Tensor]:
    programmed = write(w, hardware, stream=Stream(1), w_range=float(hardware.max_code))
    return [mvm(x, programmed, level=level, x_range=127.0, stream=Stream(2), **options) for level in LEVELS]


@pytest.mark.parametrize("kind", ["bit_serial", "amplitude"])
def test_circuits_without_any_error_change_no_bit(kind: str) -> None:
    common: dict[str, Any] = {
        "rows": 8, "inputs": {"kind": kind}, "adc": {"bits": 6}, "cell": cell(write_noise=UNIFORM, read_noise=UNIFORM),
    }  # fmt: skip
    ideal = {"gain_mismatch": 0.1, "offset_mismatch": 0.1, "calibration": {}}
    for parts in ({}, {"read_voltage": 0.2}, ideal):
        for one, other in zip(results(array(**common)), results(array(**common, peripherals=parts)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("weighting", ["charge", "repetition"])
@pytest.mark.parametrize("phases", [1, 2, 7])
@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("subtract", ["digital", "analog"])
def test_integrated_inputs_are_exact_with_loss_free_converters(
    weighting: str, phases: int, encoding: str, subtract: str
) -> None:
    inputs = {"kind": "integrated", "weighting": weighting, "phases": phases}
    hardware = array(
        rows=8, bits=9 if encoding == "offset" else 8, inputs=inputs, encoding=encoding, subtract=subtract,
        adc={"bits": 16},
    )  # fmt: skip
    for y in results(hardware):
        torch.testing.assert_close(y, X @ W.T, rtol=1e-12, atol=0)


def test_integrated_inputs_without_sign_have_the_codes_of_their_pulses() -> None:
    hardware = array(rows=8, inputs={"kind": "integrated", "bits": 1})
    x = torch.tensor([[0.0, 1.0, 1.0]]).double()
    w = torch.tensor([[3.0, 5.0, -7.0]]).double()
    for signed in (False, True):
        programmed = write(w, hardware, w_range=255.0)
        assert float(mvm(x, programmed, x_range=1.0, signed=signed)) == -2.0
    assert hardware.max_input(signed=True) == hardware.max_input(signed=False) == 1


def test_all_bits_of_an_input_are_rounded_once() -> None:
    """One column: 5 x 3 + 6 x 2 + 1 x 1 = 28 of a range 0..84 with 3 bits, that is steps of 12: 24."""
    hardware = array(
        rows=4, bits=2, inputs={"kind": "integrated", "bits": 4}, adc={"bits": 3, "range": {"kind": "given", "low": 0}}
    )
    w, x = torch.tensor([[3.0, 2.0, 1.0]]).double(), torch.tensor([[5.0, 6.0, 1.0]]).double()
    programmed = write(w, hardware, w_range=3.0)
    for level in ("cell", "array"):
        assert float(mvm(x, programmed, level=level, x_range=7.0, signed=False)) == pytest.approx(24.0)  # type: ignore[arg-type]
    serial = array(rows=4, bits=2, inputs={"kind": "bit_serial", "bits": 3}, adc={"bits": 2})
    converted = mvm(x, write(w, serial, w_range=3.0), x_range=7.0, signed=False)
    assert float(converted) == pytest.approx(28.0, abs=16)  # three conversions of 0..12 in steps of 4
    assert float(converted) != 24.0


@pytest.mark.parametrize("level", LEVELS)
def test_a_curved_cell_bends_amplitudes(level: Any) -> None:
    """sinh(2 x / 127) / sinh(2) in place of x / 127; the largest input is exact."""
    hardware = array(
        rows=8, inputs={"kind": "amplitude"}, cell=cell(sinh_voltage=0.1), peripherals={"read_voltage": 0.2}
    )
    bent = 127 * torch.sinh(2 * X / 127) / math.sinh(2)
    y = results(hardware)[LEVELS.index(level)]
    torch.testing.assert_close(y, bent @ W.T, rtol=1e-12, atol=1e-9)
    ends = results(hardware, x=torch.full((1, 20), 127.0).double())[LEVELS.index(level)]
    torch.testing.assert_close(ends, 127 * W.sum(-1)[None], rtol=1e-12, atol=1e-9)


def test_predistortion_takes_the_nearest_level() -> None:
    inputs, parts = {"kind": "amplitude"}, {"read_voltage": 0.2, "predistorted": True}
    hardware = array(rows=8, inputs=inputs, cell=cell(sinh_voltage=0.1), peripherals=parts)
    levels = 127 * torch.sinh(2 * torch.arange(-127, 128).double() / 127) / math.sinh(2)
    nearest = levels[(X[..., None] - levels).abs().argmin(-1)]
    for y in results(hardware):
        torch.testing.assert_close(y, nearest @ W.T, rtol=1e-12, atol=1e-9)
    assert float((nearest - X).abs().max()) < 1.3  # steps at the upper end are 2.1 input units apart


def test_curved_cells_leave_single_voltages_alone() -> None:
    for inputs in ({"kind": "bit_serial"}, {"kind": "integrated"}):
        for y in results(array(rows=8, inputs=inputs, cell=cell(sinh_voltage=0.1))):
            torch.testing.assert_close(y, X @ W.T, rtol=1e-12, atol=0)


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("kind", ["bit_serial", "amplitude", "integrated"])
def test_all_levels_see_the_same_converters(encoding: str, kind: str) -> None:
    """Mismatch belongs to a chip; where converters do not round, products are the same to rounding errors."""
    parts = {"gain_mismatch": 0.05, "offset_mismatch": 0.01}
    hardware = array(
        rows=8, columns=2, bits=9 if encoding == "offset" else 8, encoding=encoding, inputs={"kind": kind},
        adc={"range": GIVEN, "columns_per_adc": 2}, peripherals=parts, redundancy=2,
    )  # fmt: skip
    one, two, three = results(hardware)
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-6)
    torch.testing.assert_close(two, three, rtol=1e-10, atol=1e-6)
    assert float((one - X @ W.T).abs().max()) > 1


def test_neighboring_columns_share_a_converter() -> None:
    hardware = array(
        rows=8, columns=6, bits=2, peripherals={"gain_mismatch": 0.1, "offset_mismatch": 0.1},
        adc={"bits": 8, "columns_per_adc": 4},
    )  # fmt: skip
    programmed = write(torch.ones(9, 20).double(), hardware, stream=Stream(4))
    assert programmed.mismatch is not None
    errors = programmed.mismatch.columns[:, 0, 0]
    assert errors.shape == (2, 9, 3)
    groups = [(0, 1, 2, 3), (4, 5), (6, 7, 8)]
    for group in groups:
        assert bool((errors[:, list(group)] == errors[:, group[:1]]).all())
    assert len({float(errors[0, group[0], 0]) for group in groups}) == 3
    assert len(set(errors[0, 0].tolist())) == 3


def test_converters_belong_to_the_chip_not_to_samples_or_noise() -> None:
    hardware = array(rows=8, peripherals={"gain_mismatch": 0.1}, adc={"bits": 8})
    chip = Stream(3)
    batch = W.expand(2, -1, -1)
    samples = SampleStreams((Stream(1), Stream(2)))
    of_samples = write(batch, hardware, stream=samples, fault_stream=chip).mismatch
    alone = write(W, hardware, stream=Stream(9), fault_stream=chip).mismatch
    assert of_samples is not None
    assert alone is not None
    assert torch.equal(of_samples.columns.squeeze(3), alone.columns)
    with pytest.raises(BadInput, match="mismatch of converters belongs to a chip"):
        write(batch, hardware, stream=samples)


def test_calibration_leaves_the_noise_of_its_reads() -> None:
    """Offset: sigma / sqrt(reads). Gain: the difference of two means, sqrt(2) times as much."""
    errors = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(1)).double() * 0.05
    eps = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(2)).double()
    parts = Peripherals(
        gain_mismatch=0.05, offset_mismatch=0.05, output_noise=0.02, calibration=MismatchCalibration(reads=16)
    )
    left = calibrated(errors, parts, eps)
    # relative error of a standard deviation of 200,000 values: 0.16 %; five of them fail once in 1.7 million
    assert float(left[OFFSET].std()) == pytest.approx(0.005, rel=0.008)
    assert float(left[GAIN].std()) == pytest.approx(0.005 * math.sqrt(2), rel=0.008)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_trims_leave_half_a_step(bits: int) -> None:
    errors = torch.linspace(-0.2, 0.2, 1001).double().expand(2, -1)
    parts = Peripherals(gain_mismatch=0.05, offset_mismatch=0.05, calibration=MismatchCalibration(bits=bits))
    left = calibrated(errors, parts, torch.zeros(2, 1001).double())
    assert float(left.abs().max()) == pytest.approx(0.2 / 2**bits, rel=1e-2)
    alone = parts.model_copy(update={"offset_mismatch": 0.0})
    assert torch.equal(calibrated(errors, alone, torch.zeros(2, 1001).double())[OFFSET], errors[OFFSET])


def test_rows_without_input_are_not_driven_and_their_arrays_not_converted() -> None:
    parts = {"input_noise": 0.1, "output_noise": 0.1, "offset_mismatch": 0.1}
    for kind in ("bit_serial", "amplitude", "integrated"):
        hardware = array(rows=8, inputs={"kind": kind}, adc={"range": GIVEN}, peripherals=parts)
        half = X.clone()
        half[:, 8:] = 0
        for y, alone in zip(results(hardware, x=0 * X), results(hardware, x=half), strict=True):
            assert not y.any()
            assert bool((alone != X[:, :8] @ W[:, :8].T).all())
        short = write(W[:, :8], hardware, stream=Stream(1), w_range=255.0)
        y = mvm(X[:, :8], short, level="noise", x_range=127.0, stream=Stream(2))
        whole = write(W, hardware, stream=Stream(1), w_range=255.0)
        assert y.shape == mvm(half, whole, level="noise", x_range=127.0, stream=Stream(2)).shape


def test_calibrated_ranges_contain_the_noise() -> None:
    ranged = {"bits": 8, "range": {"kind": "calibrated"}}
    quiet = array(rows=8, adc=ranged)
    x = X.repeat(300, 1)
    before = column_percentiles(x, write(W, quiet), signed=True, percentile=100)
    for name, value in (("output_noise", 0.1), ("offset_mismatch", 0.1), ("gain_mismatch", 0.3), ("input_noise", 0.3)):
        noisy = write(W, replace(quiet, f"peripherals.{name}", value))
        low, high = column_percentiles(x, noisy, signed=True, percentile=100, noise=Stream(6))
        wider = (high - low) / (before[1] - before[0])
        assert bool((abs(wider - 1) > 0.02).all() if name == "gain_mismatch" else (wider > 1.02).all()), name
    exact = write(W, replace(quiet, "peripherals.output_noise", 0.1))
    same = column_percentiles(x, exact, signed=True, percentile=100)
    assert torch.equal(same[0], before[0])


def test_noise_follows_aihwkit_units() -> None:
    """out_noise 0.04 at out_bound 10, with weights and inputs up to 1: 0.04 / 20 of the range of a converter."""
    hardware = array(
        rows=512, bits=8, bits_per_cell=8, subtract="analog", inputs={"kind": "amplitude"},
        adc={"range": {"kind": "given", "high": 10 / 512}}, peripherals={"output_noise": 0.04 / 20},
    )  # fmt: skip
    w, x = torch.eye(1, 40).double(), torch.ones(20_000, 40).double()
    y = mvm(x, program(w, hardware, w_range=1.0), x_range=1.0, stream=Stream(3))
    assert float(y.std()) == pytest.approx(0.04, rel=0.025)  # five standard errors of 0.5 %


REFUSED = [
    ({"peripherals": {"output_noise": 0.01}}, "peripherals.output_noise = 0.01 is a share .* adc.range.kind = 'given'"),
    ({"peripherals": {"offset_mismatch": 0.01}}, "peripherals.offset_mismatch = 0.01 is a share of the range"),
    ({"peripherals": {"output_noise": -0.01}}, "peripherals.output_noise"),
    ({"peripherals": {"input_noise": 1.5}}, "peripherals.input_noise"),
    ({"peripherals": {"gain_mismatch": 0.7}}, "peripherals.gain_mismatch"),
    ({"peripherals": {"gain_mismatch": float("nan")}}, "peripherals.gain_mismatch"),
    ({"peripherals": {"calibration": {"reads": 0}}}, "calibration.reads"),
    ({"peripherals": {"calibration": {"bits": 0}}}, "calibration.bits"),
    ({"peripherals": {"predistorted": True}}, "peripherals.predistorted = true needs"),
    ({"peripherals": {"noise": 0.1}}, "noise"),
    (
        {"peripherals": {"gain_mismatch": 0.1}, "encoding": "offset", "subtract": "analog"},
        "peripherals.gain_mismatch = 0.1 is not simulated where a reference column",
    ),
    ({"cell": {"sinh_voltage": "0.1 V"}, "inputs": {"kind": "amplitude"}}, "peripherals.read_voltage: is missing"),
    (
        {"cell": {"sinh_voltage": "1 mV"}, "inputs": {"kind": "amplitude"}, "peripherals": {"read_voltage": "0.3 V"}},
        "peripherals.read_voltage = 0.3 V is above 20 times cell.sinh_voltage = 0.001 V",
    ),
    (
        {
            "cell": {"sinh_voltage": "0.1 V"}, "inputs": {"kind": "amplitude"},
            "peripherals": {"read_voltage": "0.1 V"}, "wires": {"row": "1 ohm", "column": "1 ohm"},
        },
        "wires: cells whose current is not linear",
    ),
    ({"cell": {"sinh_voltage": 0}}, "cell.sinh_voltage"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_is_not_simulated_is_refused_in_one_line(fields: dict[str, Any], message: str, tmp_path: Any) -> None:
    from ohmformer.hardware.entries import load_crossbar

    base: dict[str, Any] = {
        "rows": 8, "columns": 8, "cell": {"g_min": "0.1 uS", "g_max": "10 uS", **fields.get("cell", {})},
        **{name: value for name, value in fields.items() if name != "cell"},
    }  # fmt: skip
    file = tmp_path / "a.toml"
    file.write_text(toml({"array": base}))
    with pytest.raises(BadInput, match=message) as caught:
        load_crossbar(str(file))
    assert "\n" not in str(caught.value)


def toml(table: dict[str, Any], path: str = "") -> str:
    own = [
        f"{k} = {str(v).lower() if isinstance(v, (bool, float, int)) else repr(v)}"
        for k, v in table.items()
        if not isinstance(v, dict)
    ]
    inner = [toml(v, f"{path}.{k}".lstrip(".")) for k, v in table.items() if isinstance(v, dict)]
    return "\n".join([f"[{path}]" if path else "", *own, *inner])


def test_noise_needs_a_stream() -> None:
    hardware = array(rows=8, peripherals={"input_noise": 0.1})
    with pytest.raises(BadInput, match="the drivers or converters have noise but no stream was given"):
        mvm(X, program(W, hardware), level="noise")
    with pytest.raises(BadInput, match="the cells have read noise"):
        mvm(X, program(W, array(rows=8, cell=cell(read_noise=PROPORTIONAL))))


def test_offsets_of_converters_behind_an_analog_reference_fold() -> None:
    """Gradients and ideal converters need the folded matrix, which offsets do not change."""
    parts = {"offset_mismatch": 0.02}
    common: dict[str, Any] = {"encoding": "offset", "subtract": "analog", "rows": 8, "columns": 4, "adc": {"bits": 8}}
    codes = W.clamp(-127, 127)
    plain, offset = (
        fold(write(codes, array(**common, peripherals=kind), stream=Stream(1))).values for kind in ({}, parts)
    )
    assert torch.equal(offset, plain)


@pytest.mark.parametrize("name", ["gain_mismatch", "offset_mismatch"])
@pytest.mark.parametrize("value", ["150 %", "60 %", 1.5, 0.6])
def test_a_mismatch_that_is_too_large_is_refused_with_its_limit(name: str, value: float | str) -> None:
    with pytest.raises(BadInput, match=rf"{name} = .*: must be <= 0\.5; lower it"):
        replace(array(), f"peripherals.{name}", value)
