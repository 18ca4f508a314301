"""Even shares of the weights of consecutive layers."""

from __future__ import annotations

import random

from ohmformer.cost.chips.even_shares import divided_further, even_ends


def test_equal_layers_are_shared_evenly() -> None:
    assert even_ends([0, *[5] * 12], 3) == (5, 9, 13)
    assert even_ends([0, *[5] * 12, 40], 2) == (11, 14)
    assert even_ends([1, 1, 1], 3) == (1, 2, 3)


def test_every_group_has_weights_and_all_layers_are_in_one() -> None:
    draw = random.Random(3)
    for _ in range(300):
        sizes = [draw.choice((0, 1, 3, 50)) for _ in range(draw.randint(1, 30))]
        full = sum(size > 0 for size in sizes)
        if not full:
            continue
        groups = draw.randint(1, full)
        ends = even_ends(sizes, groups)
        starts = (0, *ends[:-1])
        assert ends[-1] == len(sizes)
        assert len(ends) == groups
        assert all(sum(sizes[first:end]) > 0 for first, end in zip(starts, ends, strict=True))
        half = divided_further([(0, len(sizes), 1)], sizes, groups - 1)
        assert [first for first, _, _ in half] == [0, *(end for _, end, _ in half[:-1])]
        assert half[-1][1] == len(sizes)
        assert len(half) == groups
        assert all(sum(sizes[first:end]) > 0 for first, end, _ in half)


def test_the_group_with_most_weights_is_divided_first() -> None:
    assert divided_further([(0, 4, 1), (4, 6, 1), (6, 7, 2)], [0, 2, 2, 2, 9, 9, 30], 1) == [
        (0, 4, 1),
        (4, 5, 1),
        (5, 6, 1),
        (6, 7, 2),
    ]
