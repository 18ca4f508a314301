"""Formulas for one number give the numbers of many designs, and refuse to decide for all where designs differ."""

from __future__ import annotations

from math import ceil, floor, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, KeyTimes, PerQueryCost
from ohmformer.cost.designs.per_design import Disagreement, PerDesign, largest, of_designs, smallest, value_at

NUMBERS = st.lists(st.floats(0.1, 10), min_size=2, max_size=5)


def per_design(*values: float) -> PerDesign:
    return PerDesign(np.array(values))


@given(NUMBERS, st.floats(0.1, 10))
def test_arithmetic_goes_design_by_design(values: list[float], other: float) -> None:
    many = per_design(*values)
    found = -(((2 + many) * 3 - other / many) ** 2) + (many - 1) / (1 - many * 11) + abs(many) * sum([many, +many])
    alone = [-(((2 + x) * 3 - other / x) ** 2) + (x - 1) / (1 - x * 11) + abs(x) * sum([x, +x]) for x in values]
    assert found.values == pytest.approx(alone, rel=1e-12)


def test_a_decision_that_all_designs_share_is_made() -> None:
    many = per_design(2.25, 2.75)
    assert max(many, 1.0) is many
    assert (ceil(many), floor(many), int(many)) == (3, 2, 2)
    assert bool(many)
    assert not per_design(0.0, 0.0)
    assert many > 2
    assert 0 <= many < inf
    assert many != 1
    assert many == per_design(2.25, 2.75)
    assert len({many, per_design(2.25, 2.75)}) == 1
    assert many != "included"


@pytest.mark.parametrize(
    ("decide", "outcomes"),
    [
        (lambda many: bool(many), [False, True, True]),
        (lambda many: max(many, 1.5), [True, True, False]),
        (lambda many: many == 1.0, [False, True, False]),
        (lambda many: ceil(many), [0, 1, 3]),
    ],
)
def test_a_decision_in_which_designs_differ_is_not_made(decide, outcomes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Disagreement) as refused:
        decide(per_design(0.0, 1.0, 3.0))
    assert refused.value.outcomes.tolist() == outcomes


def test_arrays_and_single_numbers_are_refused() -> None:
    many, array = per_design(1.0, 2.0), np.array([1.0, 2.0])
    for mix in (lambda: many * array, lambda: array * many, lambda: np.maximum(array, many), lambda: many == array):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(TypeError):
        float(many)  # type: ignore[arg-type]


def test_the_largest_and_smallest_are_taken_design_by_design() -> None:
    many, other = per_design(1.0, 4.0), per_design(3.0, 2.0)
    assert largest(2.5, many, other).values.tolist() == [3.0, 4.0]  # type: ignore[arg-type, attr-defined]
    assert smallest(2.5, many, other).values.tolist() == [1.0, 2.0]  # type: ignore[arg-type, attr-defined]
    assert (largest(1.0, 2), smallest(1.0, 2)) == (2, 1.0)
    assert of_designs(np.float64(2.0)) == 2.0
    assert value_at(many, 1) == 4.0
    assert value_at(7, 1) == 7.0


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.integers(1, 30), st.integers(1, 40))
def test_times_by_keys_are_those_of_each_design(seconds: list[float], block: int, queries: int) -> None:
    def times(first: float, second: float, third: float) -> KeyTimes:
        parts = (
            PerQueryCost(first, (KeyTerm(second, 1, inf),)),
            PerQueryCost(0.0, (KeyTerm(third, 4, 20),)),
            PerQueryCost(1.0),
        )
        return KeyTimes(KeysPerQuery(3, queries, 1), parts)

    factors = (0.5, 1.0, 3.0)
    many = times(*(per_design(*(one * factor for factor in factors)) for one in seconds))  # type: ignore[arg-type]
    alone = [times(*(one * factor for one in seconds)) for factor in factors]
    assert many.by_block(block) == pytest.approx(np.array([one.by_block(block) for one in alone]), rel=1e-12)
    assert [value_at(many.total, place) for place in range(3)] == pytest.approx([one.total for one in alone])
