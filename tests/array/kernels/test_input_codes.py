"""Codes of the compiled loop are those of PyTorch to the bit, and refuse what it refuses."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.array import encoding
from ohmformer.array.kernels import input_codes
from ohmformer.errors import BadInput
from tests.build import array
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
SPEC = array(inputs={"kind": "amplitude", "bits": 6})
SHAPE = (2, 3, 5, 7)


@given(
    seed=st.integers(0, 2**20),
    signed=st.booleans(),
    bits=st.integers(2, 16),
    of=st.sampled_from([(), (1,), (2, 1, 1, 1), (2, 3, 1, 1), (3, 5, 1), (1, 3, 1, 1), (1, 5, 1)]),
    layout=st.sampled_from(["contiguous", "turned", "gaps"]),
)
def test_codes_are_those_of_pytorch(seed: int, signed: bool, bits: int, of: tuple[int, ...], layout: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    spec = array(inputs={"kind": "amplitude", "bits": bits})
    x = 4 * torch.randn(SHAPE, generator=generator)
    x = x.transpose(-2, -1).contiguous().transpose(-2, -1) if layout == "turned" else x
    x = torch.cat([x, x], dim=1)[:, ::2][:, :3] if layout == "gaps" else x
    x_range = (torch.rand(of, generator=generator) * 5).floor()  # zero and ties among them
    assert input_codes.fusible(x, x_range, 2**bits, "compiled")
    expected = encoding.quantize_input(x, spec, x_range, signed=signed)
    found = encoding.quantize_input(x, spec, x_range, signed=signed, kernels="compiled")
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    values = encoding.quantize(x, spec, x_range), encoding.quantize(x, spec, x_range, kernels="compiled")
    assert torch.equal(*values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["value", "range"])
def test_what_is_not_finite_is_refused_in_the_same_words(bad: float, place: str) -> None:
    x, x_range = torch.ones(SHAPE), torch.ones(2, 1, 1, 1)
    (x if place == "value" else x_range)[1, 0, 0, 0] = bad
    messages = []
    for kernels in ("torch", "compiled"):
        with pytest.raises(BadInput) as caught:
            encoding.quantize_input(x, SPEC, x_range, signed=True, kernels=kernels)  # type: ignore[arg-type]
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"kernels": "torch"},
        {"values": torch.ones(2, 3).double()},
        {"code_range": torch.ones(3)},
        {"top": 2**22},
        {"values": torch.ones(0, 3)},
    ],
    ids=["torch", "double", "last axis", "many bits", "empty"],
)
def test_other_values_take_the_plain_code(changed: dict[str, Any]) -> None:
    usual = {"values": torch.ones(2, 3), "code_range": torch.ones(2, 1), "top": 127, "kernels": "compiled"}
    assert input_codes.fusible(**usual)
    assert not input_codes.fusible(**{**usual, **changed})
