"""ClipFormer's two stages: by hand, at their limits, and refused where they make no sense."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ohmformer as of
from ohmformer import BadInput, Crossbar, KVClip
from ohmformer.nn.operands.clipping import soft_clips
from tests.nn.models import vit

ARRAY = of.load_crossbar("clipformer_2024")
CODES = torch.arange(-255.0, 256.0)


def clip_codes(codes: Tensor, clip: KVClip, array: Crossbar) -> Tensor:
    """Codes of one head, clipped."""
    (soft,) = soft_clips(clip, array)
    assert soft is not None
    return soft.clip(codes, array)


def by_conductance(code: float, alpha: float, beta: float) -> int:
    """Algorithm 1 in siemens, for one code of an 8-bit magnitude."""
    g_min, g_max = ARRAY.cell.g_min, ARRAY.cell.g_max
    g = g_min + abs(code) / 255 * (g_max - g_min)
    g = max(g - alpha * g_min, g_min)
    g = min(g, beta * g_max)
    magnitude = round((g - g_min) / (g_max - g_min) * 255)
    return magnitude if code > 0 else -magnitude


@given(alpha=st.floats(0, 20), beta=st.floats(0.05, 1))
def test_it_is_algorithm_1(alpha: float, beta: float) -> None:
    found = clip_codes(CODES, KVClip(alpha=alpha, beta=beta), ARRAY)
    expected = torch.tensor([float(by_conductance(c, alpha, beta)) for c in CODES.tolist()])
    # A value that falls on the middle between two codes may round either way.
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.02


def test_published_thresholds() -> None:
    shift, top = KVClip(alpha=2.0, beta=0.25).thresholds(ARRAY)
    assert shift == pytest.approx(0.0202, abs=5e-5)
    assert top == pytest.approx(0.2424, abs=5e-5)
    assert KVClip(alpha=2.0, beta=0.25).max_code(ARRAY) == 62


def test_identity() -> None:
    assert torch.equal(clip_codes(CODES, KVClip(alpha=0.0, beta=1.0), ARRAY), CODES)
    x = torch.randn(2, 1, 12, 12)
    hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
    plain, clipped = (of.convert(vit(), hardware, sample=x, clip=clip) for clip in (None, KVClip(alpha=0.0, beta=1.0)))
    with torch.no_grad(), of.samples([0, 1]):
        assert torch.equal(plain(x), clipped(x))


@given(alpha=st.floats(0, 50), beta=st.floats(0.02, 1))
def test_no_code_exceeds_the_bound_that_decides_the_slices(alpha: float, beta: float) -> None:
    clip = KVClip(alpha=alpha, beta=beta)
    assert clip_codes(CODES, clip, ARRAY).abs().max() <= clip.max_code(ARRAY)


def test_infinite_on_off_ratio_has_no_first_stage() -> None:
    array = of.replace(ARRAY, "cell.g_min", "0 S")
    found = clip_codes(CODES, KVClip(alpha=9.0, beta=0.5), array)
    assert torch.equal(found, CODES.clamp(-128, 128))


def test_offset_arrays_have_no_clip() -> None:
    array = of.replace(ARRAY, "encoding", "offset")
    with pytest.raises(BadInput, match="offset"):
        clip_codes(CODES, KVClip(), array)


def test_a_clip_can_be_changed_but_not_to_an_impossible_one() -> None:
    x = torch.randn(2, 1, 12, 12)
    model = of.convert(vit(), of.load("clipformer_tcad_2024"), sample=x)
    with torch.no_grad(), of.samples([0, 1]):
        before = model(x)
        of.set_clip(model, KVClip(alpha=2.0, beta=0.25))
        assert not torch.allclose(model(x), before)
        of.set_clip(model, None)
        assert torch.equal(model(x), before)
    with pytest.raises(BadInput, match="beta r"):
        of.set_clip(model, KVClip(alpha=0.0, beta=0.005))
