"""What it takes to rotate a vector: sizes and digital work. Free of torch; both halves read it."""

from __future__ import annotations


def odd_part(size: int) -> int:
    """The odd number m with size = 2^k m."""
    return size // (size & -size)


def operations(size: int) -> int:
    """Additions (and multiplications, for odd factors) that rotate one vector of n = 2^k m values.

    Each of the k steps of a fast Hadamard transform adds or subtracts n pairs: n log2 n for a power of two. The odd
    factor costs m multiplications and m - 1 additions for each value. Signs cost nothing, since they choose between
    adding and subtracting; nor does the factor 1 / sqrt(n), which is part of the scale of the inputs.
    """
    m = odd_part(size)
    steps = (size // m).bit_length() - 1
    return size * (steps + (2 * m - 1 if m > 1 else 0))
