"""ClipFormer's thresholds, in conductances and in values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from tests.build import array, cell


def test_published_pair_in_values() -> None:
    """alpha = 2, beta = 0.25 at r = 100: 2.02 % and 24.2 % of full scale, 62 of 255."""
    shift, top = KVClip(alpha=2.0, beta=0.25).thresholds(array())
    assert shift == pytest.approx(2 / 99)
    assert top == pytest.approx(24 / 99)
    assert KVClip(alpha=2.0, beta=0.25).max_code(array()) == 62


@given(st.floats(0, 5), st.floats(0.02, 1), st.floats(0, 1))
def test_stages_on_conductances_are_thresholds_on_values(alpha: float, beta: float, x: float) -> None:
    g_min, g_max = 1e-7, 1e-5
    clipped = min(max(g_min + x * (g_max - g_min) - alpha * g_min, g_min), beta * g_max)
    shift, top = KVClip(alpha=alpha, beta=beta).thresholds(array())
    assert min(max(x - shift, 0), top) == pytest.approx((clipped - g_min) / (g_max - g_min), abs=1e-12)


def test_alpha_0_and_beta_1_change_nothing() -> None:
    clip = KVClip(alpha=0.0, beta=1.0)
    assert clip.thresholds(array()) == (0.0, 1.0)
    assert clip.max_code(array()) == 255


def test_without_off_conductance_only_stage_two_is_left() -> None:
    assert KVClip(alpha=2.0, beta=0.5).thresholds(array(cell=cell(g_min=0.0))) == (0.0, 0.5)


def test_a_clip_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"clip.beta = 0.01: .*raise beta"):
        KVClip(beta=0.01).thresholds(array())


@pytest.mark.parametrize("fields", [{"alpha": -1.0}, {"beta": 0.0}, {"beta": 1.5}, {"alpha": float("nan")}])
def test_parameters_have_bounds(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        KVClip.model_validate(fields)
