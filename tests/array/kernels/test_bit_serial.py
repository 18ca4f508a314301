"""Compiled products with bit-serial inputs give what the plain code gives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.array import converters, multiply
from ohmformer.array.crossbar import write
from ohmformer.array.kernels import bit_serial
from ohmformer.array.multiply import mvm
from ohmformer.array.programmed import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.streams import Stream
from ohmformer.streams.compiling import has_amx
from tests.build import SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
ADC = {"adc": {"bits": 5}}
HARDWARE: dict[str, dict[str, Any]] = {
    "pairs": ADC,
    "analog subtraction": {**ADC, "subtract": "analog"},
    "copies": {**ADC, "redundancy": 2},
    "few rows": {**ADC, "rows": 5},
    "many rows": {**ADC, "rows": 200},
    "a range that no digit divides": {"adc": {"bits": 6, "range": {"kind": "given", "high": 0.37}}},
    "three input bits": {**ADC, "inputs": {"bits": 3}},
    "16 input bits": {**ADC, "inputs": {"bits": 16}},
    "converters that begin above zero": {"adc": {"bits": 4, "range": {"kind": "given", "low": 0.1, "high": 0.6}}},
    "a converter of one bit": {"adc": {"bits": 1, "range": {"kind": "given", "high": 0.2}}},
}


@pytest.fixture(params=["sums that are looked up", "tiles"], scope="module", autouse=True)
def loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both loops."""
    if request.param == "tiles" and not has_amx():
        pytest.skip("needs a CPU with Intel AMX")
    with pytest.MonkeyPatch.context() as patch:
        computed = partial(bit_serial.converted_product, tiles=request.param == "tiles")
        patch.setattr(bit_serial, "converted_product", computed)
        yield request.param


def hardware(name: str, **changes: Any) -> Crossbar:
    return array(**{"rows": 24, "columns": 16, "bits": 4, **HARDWARE[name], **changes})


def operands(spec: Crossbar, signed: bool, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Codes of inputs, both ends among them, and of a matrix."""
    generator = torch.Generator().manual_seed(4)
    top = spec.max_input(signed=signed)
    x = torch.randint(-top if signed else 0, top + 1, shapes[0], generator=generator).float()
    x.view(-1)[:2] = torch.tensor([top, -top if signed else 0])
    w = torch.randint(-spec.max_code, spec.max_code + 1, shapes[1], generator=generator).float()
    return x, w


def both_ways(x: Tensor, programmed: Programmed, signed: bool) -> tuple[Tensor, Tensor]:
    """The product by the loop and by the plain code."""
    span = converters.adc_range(programmed.array, signed=signed, calibrated=None)
    assert bit_serial.fusible(x, programmed, None, "compiled")
    loop = bit_serial.converted_product(x, programmed, signed=signed, span=span)
    return loop, multiply.converted_product(x, programmed, signed=signed, stream=None, span=span)


SHAPES = {
    "a matrix": ((3, 50), (7, 50)),
    "more columns than one part": ((3, 30), (150, 30)),
    "more vectors than bits are kept for": ((600, 30), (5, 30)),
    "a matrix for samples": ((2, 1, 3, 50), (7, 50)),
    "matrices": ((2, 3, 4, 50), (2, 3, 5, 50)),
    "inputs for matrices": ((4, 50), (3, 5, 50)),
    "axes that broadcast": ((2, 1, 4, 30), (1, 3, 5, 30)),
}


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", HARDWARE)
def test_whole_digits_give_the_numbers_of_the_plain_code(name: str, signed: bool) -> None:
    """Currents are whole, so every conversion has the same code, halves between two codes among them."""
    spec = hardware(name)
    x, w = operands(spec, signed, SHAPES["a matrix"])
    loop, plain = both_ways(x, write(w, spec, stream=1), signed)
    assert plain.abs().max() > 1
    torch.testing.assert_close(loop, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", ["pairs", "analog subtraction", "few rows"])
def test_noisy_digits_give_the_numbers_of_the_plain_code(name: str, shapes: str) -> None:
    """Rounding of a sum may move the code of one conversion in some million: here of none."""
    spec = hardware(name, cell=cell(write_noise=UNIFORM))
    x, w = operands(spec, True, SHAPES[shapes])
    loop, plain = both_ways(x, write(w, spec, stream=1), True)
    assert loop.shape == plain.shape
    torch.testing.assert_close(loop, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_columns_of_v_and_cells_that_are_not_contiguous() -> None:
    spec = hardware("pairs", cell=cell(write_noise=SQRT_RANGE))
    x, w = operands(spec, False, ((2, 1, 3, 40), (2, 1, 9, 40)))
    programmed = write(w, spec, stream=1, major="inputs")
    loop, plain = both_ways(x.mT.contiguous().mT, programmed, False)
    torch.testing.assert_close(loop, plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_converters_that_lose_nothing_give_the_exact_product() -> None:
    spec = array(adc={"bits": 8})
    x, w = operands(spec, True, ((40, 100), (70, 100)))
    loop, _ = both_ways(x, write(w, spec), True)
    assert torch.equal(loop, (x.double() @ w.double().T).float())


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 130), st.integers(1, 70))
def test_batches_and_sizes_change_no_bit(M: int, inputs: int, O: int, rows: int) -> None:
    spec = hardware("pairs", cell=cell(write_noise=UNIFORM), rows=rows)
    x, w = operands(spec, True, ((M, inputs), (O, inputs)) if M * inputs > 1 else ((2, 1), (O, 1)))
    programmed = write(w, spec, stream=1)
    whole, _ = both_ways(x, programmed, True)
    for m in range(len(x)):
        alone, _ = both_ways(x[m : m + 1], programmed, True)
        assert torch.equal(alone[0], whole[m])


def test_products_take_the_loop() -> None:
    """Those of `mvm` with compiled kernels, which say so by their stream; level `cell` does not."""
    spec = hardware("pairs", cell=cell(write_noise=UNIFORM))
    w, x = torch.randn(7, 50, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, 50)[None]
    programmed = write(w.sign() * 15, spec, stream=1)
    results = [
        mvm(x, programmed, stream=Stream(1, kernels=kernels), level=level)  # type: ignore[arg-type]
        for kernels, level in (("compiled", "array"), ("torch", "array"), ("compiled", "cell"))
    ]
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("kind", ["torch", "amplitude", "noise", "offset", "ideal", "double"])
def test_other_products_take_another_code(kind: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "amplitude": {"inputs": {"kind": "amplitude", "bits": 8}},
        "noise": {"cell": cell(read_noise=UNIFORM)},
        "offset": {"encoding": "offset"},
        "ideal": {"adc": {}},
    }
    spec = hardware("pairs", **changes.get(kind, {}))
    programmed = write(torch.ones(3, 4), spec, stream=1)
    x = torch.ones(2, 4, dtype=torch.float64 if kind == "double" else torch.float32)
    stream = Stream(1, kernels="compiled") if kind == "noise" else None
    assert not bit_serial.fusible(x, programmed, stream, "torch" if kind == "torch" else "compiled")
