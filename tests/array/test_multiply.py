"""What `mvm` accepts and refuses, and which random numbers its reads draw."""

from typing import Any

import pytest
import torch

from ohmformer.array import LEVELS, fold, folded_product, mvm, program
from ohmformer.array.encoding import bit_planes, read_power
from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream
from tests.build import PROPORTIONAL, array, cell

READ_NOISE = array(rows=4, cell=cell(read_noise=PROPORTIONAL))
W = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(level: Any, bad: float) -> None:
    x = X.clone()
    x[1, 2, 3] = bad
    with pytest.raises(BadInput, match="NaN or infinity"):
        mvm(x, program(W, array()), level=level, x_range=1.0)


def test_bad_input_is_refused() -> None:
    programmed = program(W, READ_NOISE)
    with pytest.raises(BadInput, match="must agree"):
        mvm(torch.ones(2, 5), programmed, stream=0)
    with pytest.raises(BadInput, match="level = 'fast' is unknown"):
        mvm(X, programmed, level="fast", stream=0)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no stream was given"):
        mvm(X, programmed)
    with pytest.raises(BadInput, match="no stream was given"):
        folded_product(X.round(), fold(programmed), READ_NOISE, None)
    with pytest.raises(BadInput, match="'calibrated'"):
        mvm(X, program(W, array(adc={"bits": 4, "range": {"kind": "calibrated"}})))
    with pytest.raises(BadInput, match="a batch of 2 rows for 1 samples"):
        mvm(X, programmed, stream=SampleStreams((Stream(0),)))


@pytest.mark.parametrize("bits", ["ideal", 6])
@pytest.mark.parametrize("level", ["array", "cell"])
def test_a_sample_is_read_with_the_same_noise_in_any_batch(level: Any, bits: Any) -> None:
    programmed = program(W, array(rows=4, cell=cell(read_noise=PROPORTIONAL), adc={"bits": bits}))
    streams = SampleStreams((Stream("a"), Stream("b")))
    both = mvm(X, programmed, level=level, x_range=2.0, stream=streams)
    one = mvm(X[1:], programmed, level=level, x_range=2.0, stream=SampleStreams((Stream("b"),)))
    torch.testing.assert_close(both[1:], one)
    again = mvm(X, programmed, level=level, x_range=2.0, stream=streams.child("next step"))
    assert not torch.allclose(both, again)


def test_dynamic_ranges_follow_each_vector_unless_a_range_is_given() -> None:
    w, x = torch.eye(2), torch.tensor([[100.0, 30.0], [1.0, 0.3]])
    hardware = array(inputs={"range": "dynamic", "bits": 4})
    y = mvm(x, program(w, hardware))
    torch.testing.assert_close(y[0], 100 * y[1])
    assert float(mvm(x, program(w, hardware), x_range=100.0)[1].abs().max()) == 0


def test_inputs_beyond_the_range_saturate() -> None:
    y = mvm(torch.tensor([[5.0, -5.0]]), program(torch.eye(2), array()), x_range=1.0)
    torch.testing.assert_close(y, torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_bit_planes_spell_integers(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    x = torch.arange(-top, top + 1.0)
    hardware = array(inputs={"bits": bits})
    planes, weights = bit_planes(x, hardware, signed=True)
    spelled = sum(plane * weight for plane, weight in zip(planes, weights, strict=True))
    assert torch.equal(torch.as_tensor(spelled), x)
    power = sum(plane * weight**2 for plane, weight in zip(planes, weights, strict=True))
    assert torch.equal(read_power(x, hardware), torch.as_tensor(power))
    whole = torch.arange(2.0**bits)
    planes, weights = bit_planes(whole, hardware, signed=False)
    assert torch.equal(read_power(whole, hardware), sum(p * w**2 for p, w in zip(planes, weights, strict=True)))


def test_public_functions_are_found_in_their_folders() -> None:
    import ohmformer.array
    import ohmformer.device
    import ohmformer.mapping

    assert ohmformer.array.mvm is mvm
    assert ohmformer.device.noise.silent(array().cell)
    assert ohmformer.mapping.plan(1, 1, array()).arrays == 8
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ohmformer.array.nothing
