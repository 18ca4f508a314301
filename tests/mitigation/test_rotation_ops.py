"""What turning a vector takes, counted by instrument."""

from __future__ import annotations

import pytest

from ohmformer.mitigation.rotation_ops import odd_part, operations


def additions(size: int) -> int:
    """Additions and subtractions of a fast Hadamard transform, one by one."""
    done, step = 0, 1
    while step < size:
        for start in range(0, size, 2 * step):
            done += 2 * len(range(start, start + step))
        step *= 2
    return done


@pytest.mark.parametrize("size", [1, 2, 8, 64, 1024])
def test_powers_of_two_take_n_log_n_additions(size: int) -> None:
    assert operations(size) == additions(size) == size * (size.bit_length() - 1)


@pytest.mark.parametrize(("size", "odd"), [(384, 3), (49, 49), (1, 1), (576, 9)])
def test_odd_factors_are_products_with_a_small_matrix(size: int, odd: int) -> None:
    assert odd_part(size) == odd
    columns = size // odd
    dense = columns * odd * (odd + odd - 1) if odd > 1 else 0  # products and sums of [odd, odd] with each column
    assert operations(size) == odd * additions(columns) + dense
