"""Ages: one write time per token and one read time per query say the age of every key at every read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ohmformer.errors import BadInput
from ohmformer.hardware.ages import Ages, CellWrites, OperandAges

NEVER = np.full(3, -np.inf)
CAUSAL = OperandAges("attn.K", "attention.key", 0, np.array([1.0, 2, 3]), np.array([4.0, 6, 9]), NEVER, causal=True)
BOTH = dataclasses.replace(CAUSAL, causal=False)


def test_age_of_a_pair() -> None:
    assert CAUSAL.age(2, 0) == 8
    assert CAUSAL.age(2, 2) == 6
    assert BOTH.age(0, 2) == 1


def test_by_distance() -> None:
    assert CAUSAL.at_distance(0).tolist() == [3, 4, 6]
    assert CAUSAL.at_distance(1).tolist() == [5, 7]
    assert CAUSAL.at_distance(-1).tolist() == []
    assert BOTH.at_distance(-1).tolist() == [2, 3]
    distances, mean, longest = CAUSAL.by_distance()
    assert distances.tolist() == [0, 1, 2]
    assert mean == pytest.approx([13 / 3, 6, 8])
    assert longest.tolist() == [6, 7, 8]
    assert BOTH.by_distance()[0].tolist() == [-2, -1, 0, 1, 2]


def test_cells_that_are_written_anew_are_young_again() -> None:
    again = dataclasses.replace(CAUSAL, rewritten=np.array([-np.inf, -np.inf, 8.5]))
    assert again.age(2, 0) == 0.5
    assert again.age(1, 0) == 5
    assert again.longest == 5
    assert CAUSAL.longest == 8


def test_queries_of_later_tokens() -> None:
    late = dataclasses.replace(CAUSAL, written=np.arange(5.0), first_query=2)
    assert late.age(4, 0) == 9
    assert late.at_distance(4).tolist() == [9]
    assert late.by_distance()[0].tolist() == [0, 1, 2, 3, 4]


def test_ages_find_operands() -> None:
    ages = Ages((CAUSAL,), (CellWrites("attention.key", 2, 1, 0.5),), 0.5)
    assert ages.of(0, "attention.key") is CAUSAL
    assert ages.longest == 8
    assert Ages().longest == 0
    assert (ages.writes[0].most_per_hour, ages.writes[0].mean_per_hour) == (14400, 7200)


def test_what_does_not_exist_is_refused() -> None:
    for query, key in ((3, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(BadInput, match=r"are not tokens of attn.K, which has queries 0 to 2 and keys 0 to 2"):
            CAUSAL.age(query, key)
    with pytest.raises(BadInput, match="key = 2: query 0 reads no later token"):
        CAUSAL.age(0, 2)
    with pytest.raises(BadInput, match="cross attention, whose tokens have no distance"):
        dataclasses.replace(CAUSAL, across=True).at_distance(0)
    with pytest.raises(BadInput, match=r"layer = 1, role = 'attention.key': nothing in cells"):
        Ages((CAUSAL,)).of(1, "attention.key")


@pytest.mark.parametrize("wrong", [1.0, 1.5, "a", None, [1], True, float("nan")])
def test_a_token_or_distance_that_is_no_whole_number_is_refused(wrong: object) -> None:
    for call in (lambda: CAUSAL.age(wrong, 0), lambda: CAUSAL.age(2, wrong), lambda: CAUSAL.at_distance(wrong)):  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="give a whole number"):
            call()
    with pytest.raises(BadInput, match="nothing in cells"):
        Ages((CAUSAL, dataclasses.replace(CAUSAL, layer=1))).of(wrong, "attention.key")  # type: ignore[arg-type]


def test_tokens_may_be_numbers_of_numpy() -> None:
    assert CAUSAL.age(np.int64(2), np.int64(0)) == 8  # type: ignore[arg-type]
    assert BOTH.at_distance(np.int64(-1)).tolist() == [2, 3]  # type: ignore[arg-type]
