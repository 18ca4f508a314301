"""Inputs as they are sent are codes times the value of one code, by the loop and by PyTorch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array import encoding
from ohmformer.array.kernels.sent_inputs import SMALL, SentInputs
from ohmformer.errors import BadInput
from tests.build import array, cell
from tests.gpu.kernels import needs_numba

SPEC = array(inputs={"kind": "amplitude", "bits": 6})
KERNELS = ["torch", pytest.param("compiled", marks=needs_numba)]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("layout", ["contiguous", "of heads", "turned", "large"])
@given(
    seed=st.integers(0, 2**20), signed=st.booleans(), bits=st.integers(2, 16), largest=st.sampled_from([0.0, 0.7, 3.0])
)
def test_they_are_codes_times_their_unit(
    kernels: str, layout: str, seed: int, signed: bool, bits: int, largest: float
) -> None:
    spec = array(inputs={"kind": "amplitude", "bits": bits})
    x = torch.randn(2, 3, 2, 5, 8, generator=torch.Generator().manual_seed(seed))
    x = {
        "contiguous": lambda: x[0],
        "of heads": lambda: x.permute(1, 0, 3, 2, 4),
        "turned": lambda: x[0].mT,
        "large": lambda: x.repeat(1, 1, 1, SMALL // 40, 1)[0],
    }[layout]()
    x = x[:, 0] if layout == "of heads" else x
    x_range = torch.tensor(largest)
    sent = SentInputs.of(spec, x_range, signed=signed, kernels=kernels)  # type: ignore[arg-type]
    assert sent is not None
    codes, unit = encoding.quantize_input(x, spec, x_range, signed=signed)
    found, squares = sent(x, squares=True)
    assert torch.equal(found, codes * unit)
    assert torch.equal(squares, found * found)
    whole, same = sent(x, 1.0)
    assert whole is same
    assert torch.equal(whole, codes)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(kernels: str, bad: float) -> None:
    sent = SentInputs.of(SPEC, torch.tensor(1.0), signed=True, kernels=kernels)  # type: ignore[arg-type]
    assert sent is not None
    x = torch.ones(3, 5)
    x[2, 4] = bad
    with pytest.raises(BadInput, match=r"^an input of a crossbar, or its range, holds NaN or infinity"):
        sent(x)


def test_other_drivers_and_ranges_are_left_to_other_code() -> None:
    noisy = array(peripherals={"input_noise": 0.1})
    curved = array(cell=cell(sinh_voltage=0.3), inputs={"kind": "amplitude"}, peripherals={"read_voltage": 0.3})
    for spec in (noisy, curved, array(inputs={"kind": "integrated"})):
        assert SentInputs.of(spec, torch.tensor(1.0), signed=True, kernels="torch") is None
    for x_range in (None, torch.ones(3, 1), torch.tensor(math.nan), torch.tensor(-1.0)):
        assert SentInputs.of(SPEC, x_range, signed=True, kernels="torch") is None
