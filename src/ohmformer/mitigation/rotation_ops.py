"""The digital operations of a rotation. Free of torch; the accuracy half and the cost half both use it."""

from __future__ import annotations


def odd_part(size: int) -> int:
    """The odd factor m of size = 2^k m."""
    return size // (size & -size)


def operations(size: int) -> int:
    """Additions and multiplications that rotate one vector of n = 2^k m values.

    Each of the k steps of a fast Hadamard transform takes n additions or subtractions, so a power of two takes
    n log2 n. An odd factor m > 1 takes m multiplications and m - 1 additions per value. Signs are free, since they
    choose between addition and subtraction. So is the factor 1 / sqrt(n), which is part of the scale of the inputs.
    """
    m = odd_part(size)
    steps = (size // m).bit_length() - 1
    return size * (steps + (2 * m - 1 if m > 1 else 0))
