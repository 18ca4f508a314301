"""Bisection finds the last value that passes, asks for few, and asks for the same ones again."""

from __future__ import annotations

import math

import pytest

from ohmformer.study.requirements.bisection import last_that_passes


def driven(limit: float, start: int, mildest: int, harshest: int, growth: int = 4) -> tuple[object, list[int]]:
    """What a search finds if values up to `limit` pass, and all that it asked for."""
    search, asked = last_that_passes(start, mildest, harshest, growth), []
    harm = next(search)
    while True:
        asked.append(harm)
        try:
            harm = search.send(harm <= limit)
        except StopIteration as stop:
            return stop.value, asked


@pytest.mark.parametrize("start", [-50, -7, 0, 13, 50, 99])
@pytest.mark.parametrize("limit", [-50, -49, -8, 0, 12, 48, 49])
def test_the_last_value_that_passes_is_found_from_any_start(start: int, limit: int) -> None:
    found, asked = driven(limit, start, -50, 50)
    assert found == (limit, limit + 1)
    assert all(-50 <= harm <= 50 for harm in asked)
    assert len(set(asked)) <= 4 + 2 * math.log2(101)


def test_ends_without_a_limit() -> None:
    assert driven(100, 3, 0, 20)[0] == (20, None)
    assert driven(-1, 3, 0, 20)[0] == (None, 0)
    assert driven(5, 5, 5, 5)[0] == (5, None)
    assert driven(4, 5, 5, 5)[0] == (None, 5)


def test_the_same_answers_lead_to_the_same_values() -> None:
    assert driven(17, 0, -100, 100) == driven(17, 0, -100, 100)
