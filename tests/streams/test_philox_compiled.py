"""Compiled loops give the numbers of the implementation in PyTorch, and the same bits in every tensor."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ohmformer.streams import SampleStreams, Stream, philox
from ohmformer.streams.places import Places, padded_rows, token_rows, whole_rows
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
SEEDS = (6197007067532723406, 1, (1 << 63) - 1)
CASES = {
    "whole": whole_rows(SEEDS, (3, 7, 211)),
    "several chunks": whole_rows(SEEDS[:1], (2, 3_301)),
    "lengths": padded_rows(SEEDS, (3, 2, 5, 4), (5, 0, 2), None),
    "padding": padded_rows(SEEDS, (3, 2, 5, 4), None, (4, 3, 1), ((0, 1, 4), (2,), (0, 1, 2, 3, 4))),
    "tokens": token_rows(SEEDS, ((0, 5), (-1, 2**31), (7, 8)), (3, 2, 2, 5), growing=False),
    "growing": token_rows(SEEDS, ((0, 5), (-1, 6), (7, 8)), (3, 2, 2, 5), growing=True),
}
COMPILED = Stream(7, kernels="compiled")


def drawn(places: Places, nth: int, kind: int) -> torch.Tensor:
    from ohmformer.streams import philox_compiled

    out = torch.full((places.size,), 9.0)
    philox_compiled.draw(out, places, nth, kind)
    return out


@pytest.mark.parametrize("kind", [philox.NORMAL, philox.UNIFORM])
@pytest.mark.parametrize("name", CASES)
def test_the_loops_draw_what_pytorch_draws(name: str, kind: int) -> None:
    places = CASES[name]
    for nth in (0, 1, 16):
        expected = torch.full((places.size,), 9.0)
        philox.draw(expected, places, nth, kind)
        # Words are the same; their logarithm and angle are rounded in other ways.
        atol = 1e-5 if kind == philox.NORMAL else 0.0
        torch.testing.assert_close(drawn(places, nth, kind), expected, rtol=0, atol=atol)
        assert int((expected == 9).sum()) == places.size - int(places.rows[:, 3].sum())


def test_normals_are_within_rounding_of_their_words() -> None:
    places = whole_rows(SEEDS[:1], (1 << 16,))
    seed = torch.tensor([SEEDS[0]])
    words = philox.philox(
        (torch.arange(1 << 14), *(torch.zeros(1, dtype=torch.int64),) * 3), (seed & philox.MASK, seed >> 32)
    )
    radius = ((torch.stack(words[::2], -1).float() + 0.5) * 2.0**-32).double()
    angle = (torch.stack(words[1::2], -1).double() + 0.5) * 2.0**-32
    r, turn = (-2.0 * radius.log()).sqrt(), 2.0 * math.pi * angle
    expected = torch.stack([r * turn.cos(), r * turn.sin()], dim=-1).flatten()
    error = (drawn(places, 0, philox.NORMAL).double() - expected).abs()
    # A unit of float32 for each of the logarithm, the root, the cosine and their product, at the largest radius.
    assert float(error.max()) < 4 * 2.0**-23 * float(r.max())


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_longer_tensors_start_with_the_bits_of_shorter_ones(a: int, b: int) -> None:
    longer, shorter = (COMPILED.normal(size, like=torch.empty(0)) for size in (max(a, b), min(a, b)))
    assert torch.equal(longer[: min(a, b)], shorter)


def test_numbers_are_normal() -> None:
    """KS and moments, each with a false-alarm rate of one in a million; the key is fixed, so the outcome is too."""
    n = 1 << 20
    numbers = COMPILED.child("many").normal(n, like=torch.empty(0)).double()
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-6
    assert abs(float(numbers.mean())) < 4.9 / n**0.5
    assert abs(float(numbers.var()) - 1) < 4.9 * (2 / n) ** 0.5
    assert abs(float(numbers.pow(4).mean()) - 3) < 4.9 * (96 / n) ** 0.5
    # Single precision cannot reach further than 6.8; values beyond 4.5 are there, as often as they should be.
    beyond = int((numbers.abs() > 4.5).sum())
    assert stats.binomtest(beyond, n, 2 * stats.norm.sf(4.5)).pvalue > 1e-6


def test_children_and_samples_keep_the_choice() -> None:
    assert COMPILED.child("a", 3).kernels == "compiled"
    assert SampleStreams((COMPILED, COMPILED)).child("b").kernels == "compiled"
    like, other = torch.empty(0), Stream(7)
    assert other.seed == COMPILED.seed
    assert other != COMPILED
    assert not torch.isclose(other.normal(50, like=like), COMPILED.normal(50, like=like)).any()
