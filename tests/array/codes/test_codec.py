"""The codec: scaling, clips by head, rounding, and bias correction."""

from __future__ import annotations

import pytest
import torch

import ohmformer as of
from ohmformer.array import encoding, quantize_unbiased, unbiased_codes
from ohmformer.array.codes.codec import Codec, SoftClip
from ohmformer.array.spec import analog

ARRAY = of.load("clipformer_tcad_2024").attention.array
VALUES = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
RANGE = VALUES.abs().amax(dim=(1, 2, 3), keepdim=True)
FIRM = SoftClip(shift=0.01, top=0.25, max_code=round(0.25 * ARRAY.max_code))


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("round_last", [True, False])
def test_without_clips_values_are_quantized(rounded: bool, round_last: bool) -> None:
    codec = Codec(ARRAY, rounded=rounded, round_last=round_last)
    assert torch.equal(codec.codes(VALUES, RANGE), encoding.quantize(VALUES, ARRAY, RANGE, rounded=rounded))
    assert codec.max_code is None


def test_each_head_has_its_clip() -> None:
    codec = Codec(ARRAY, (FIRM, None, FIRM))
    codes, plain = codec.codes(VALUES, RANGE), Codec(ARRAY).codes(VALUES, RANGE)
    assert torch.equal(codes[:, 1], plain[:, 1])
    assert torch.equal(codes[:, 0], FIRM.clip(plain[:, 0], ARRAY))
    assert codec.max_code is None
    clipped = Codec(ARRAY, (FIRM,))
    assert clipped.codes(VALUES, RANGE).abs().max() <= clipped.max_code
    with pytest.raises(of.BadInput, match="2 clips for 3 heads"):
        Codec(ARRAY, (FIRM, None)).codes(VALUES, RANGE)


def test_codes_are_corrected_after_the_clip() -> None:
    codec = Codec(ARRAY, (FIRM,), round_last=True, trade=0.1)
    soft = FIRM.clip(encoding.quantize(VALUES, ARRAY, RANGE, rounded=False), ARRAY, rounded=False)
    table = unbiased_codes(ARRAY, 0.1, FIRM.max_code)
    full = torch.tensor(float(ARRAY.max_code))
    assert torch.equal(codec.codes(VALUES, RANGE), quantize_unbiased(soft, ARRAY, full, table))


def test_without_rounding_codes_span_those_of_an_array_without_digits() -> None:
    """A radix changes the largest code, and the array without digits has no radix."""
    hardware = of.replace(ARRAY, "radix", 3)
    written = analog(hardware)
    assert written.max_code != hardware.max_code
    codec = Codec(hardware, (None, FIRM, None), rounded=False)
    codes = codec.codes(VALUES, RANGE, written)
    assert torch.equal(codes, codec.codes(VALUES, RANGE) * (written.max_code / hardware.max_code))
    assert torch.allclose(codes[:, 0] * RANGE[:, 0] / written.max_code, VALUES[:, 0])


@pytest.mark.parametrize("clips", [(), (FIRM,), (FIRM, None, FIRM)])
@pytest.mark.parametrize("trade", [None, 0.1])
def test_codes_of_a_transposed_matrix_lie_in_memory_like_it(
    clips: tuple[SoftClip | None, ...], trade: float | None
) -> None:
    """V is written transposed, and a copy in another order would cost time."""
    codec = Codec(ARRAY, clips, round_last=True, trade=trade)
    codes = codec.codes(VALUES.mT, RANGE)
    assert torch.equal(codes, codec.codes(VALUES, RANGE).mT)
    assert codes.mT.is_contiguous()
