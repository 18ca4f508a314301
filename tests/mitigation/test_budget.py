"""A budget for K and V: limits are factors of what doing nothing takes, and bad ones are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.mitigation.budget import KVBudget, KVCost
from ohmformer.schema import validate

PLAIN = KVCost(latency=2.0, energy=4.0, cells=100, area=1.0)


def cost(**changes: Any) -> KVCost:
    return KVCost(**{"latency": 2.0, "energy": 4.0, "cells": 100, "area": 1.0, **changes})


@pytest.mark.parametrize(
    ("written", "factor"),
    [
        ("+10 %", 1.1),
        ("+10%", 1.1),
        (" + 12.5 % ", 1.125),
        ("+.5 %", 1.005),
        ("+0 %", 1.0),
        ("+100 %", 2.0),
        (1, 1.0),
        (1.1, 1.1),
        ("unlimited", None),
        (None, None),
    ],
)
def test_a_limit_is_an_increase_a_factor_or_unlimited(written: Any, factor: float | None) -> None:
    budget = KVBudget(latency=written)
    assert budget.latency == factor
    assert budget.limits == ({} if factor is None else {"latency": factor})
    assert KVBudget.model_validate(budget.canonical()) == budget, "what is stored is read back"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("10 %", "has no sign; write an increase such as '+10 %'"),
        ("-5 %", "is less than doing nothing takes, which must be within the budget"),
        (0.5, "is less than doing nothing takes"),
        (0, "is less than doing nothing takes"),
        ("+10", "is no limit"),
        ("fast", "is no limit"),
        ("", "is no limit"),
        ("+inf %", "is no limit"),
        ("+1e9 %", "is no limit"),
        ("+999999999999 %", "is not a factor from 1 to 1e"),
        ("+" + "9" * 1000 + " %", "is no limit"),
        (float("nan"), "is not a factor"),
        (float("inf"), "is not a factor"),
        (True, "is no limit"),
        ([1.1], "is no limit"),
    ],
)
@pytest.mark.parametrize("quantity", ["latency", "energy", "cells", "area"])
def test_a_bad_limit_is_refused_in_one_line(quantity: str, written: Any, said: str) -> None:
    with pytest.raises(BadInput) as error:
        validate(KVBudget, {"auto": True, quantity: written}, where="study.toml", top="kv")
    text = str(error.value)
    assert text.startswith(f"study.toml: kv.{quantity} = ")
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("mark", [False, 1, "yes", None])
def test_auto_is_true(mark: Any) -> None:
    with pytest.raises(BadInput, match=r"auto.*write auto = true, or another kv"):
        KVBudget(auto=mark)


def test_every_limit_counts_and_rounding_does_not() -> None:
    budget = KVBudget(latency="+10 %", energy=1.0, cells=1.0)
    assert budget.holds(PLAIN, PLAIN)
    assert budget.holds(cost(latency=2.2, energy=4.0 * (1 + 1e-12)), PLAIN)
    for change in ({"latency": 2.21}, {"energy": 4.1}, {"cells": 101}):
        assert not budget.holds(cost(**change), PLAIN)
        assert KVBudget().holds(cost(**change), PLAIN), "without a limit all is within the budget"
    assert budget.holds(cost(area=50.0), PLAIN)
    assert not KVBudget(area=1.0).holds(cost(area=50.0), PLAIN)


def test_nothing_is_a_factor_of_one_of_nothing() -> None:
    none = cost(cells=0)
    assert none.ratios(none)["cells"] == 1.0
    assert not KVBudget(cells=1e6).holds(PLAIN, none)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "1", True, None])
def test_a_cost_is_made_of_finite_numbers(value: Any) -> None:
    with pytest.raises(BadInput, match=r"KVCost: latency = .*: must be a finite number of 0 or more"):
        cost(latency=value)
    assert cost(writes=None, lifetime=None).lifetime is None
