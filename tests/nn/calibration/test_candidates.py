"""The choice within a budget: the best within it, the cheapest of equals, and nothing without a certain gain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ohmformer.mitigation.budget import KVBudget, KVCost
from ohmformer.nn.calibration.candidates import EQUAL, TriedCandidates
from ohmformer.nn.calibration.mixtures import mixtures
from ohmformer.nn.calibration.operand_setting import OperandSetting, clips_of

N = 50
FLOOR = torch.zeros(N)
INPUTS = torch.arange(N)
JITTER = 0.01 * torch.randn(N, generator=torch.Generator().manual_seed(0))


def losses(mean: float, seed: int = 0) -> Tensor:
    noise = torch.randn(N, generator=torch.Generator().manual_seed(seed))
    return mean + 0.01 * (noise - noise.mean())


def compared(**candidates: tuple[float, float]) -> TriedCandidates:
    """Candidate -> mean loss and latency."""
    found = TriedCandidates()
    for seed, (name, (loss, latency)) in enumerate(candidates.items()):
        found.losses[name] = losses(loss, seed)
        found.costs[name] = KVCost(latency=latency, energy=1.0, cells=1.0, area=1.0)
    return found


def chosen(found: TriedCandidates, budget: KVBudget) -> str:
    return found.best_within(budget, FLOOR, INPUTS)


def test_the_best_within_the_budget_is_chosen() -> None:
    found = compared(none=(1.0, 1.0), cheap=(0.6, 1.05), dear=(0.2, 1.5), dearest=(0.1, 3.0))
    assert chosen(found, KVBudget()) == "dearest"
    assert chosen(found, KVBudget(latency="+50 %")) == "dear"
    assert chosen(found, KVBudget(latency="+49 %")) == "cheap"
    assert chosen(found, KVBudget(latency="+0 %")) == "none"


def test_of_candidates_that_are_as_good_the_cheapest_is_chosen() -> None:
    gain = 1.0 - 0.1
    close, far = 0.1 + 0.5 * EQUAL * gain, 0.1 + 2 * EQUAL * gain
    noise = torch.randn(N, generator=torch.Generator().manual_seed(9))
    found = compared(none=(1.0, 1.0), close=(close, 1.2), best=(0.1, 1.5))
    found.losses["close"] = found.losses["best"] + (close - 0.1) + 5 * (noise - noise.mean())  # within chance
    assert chosen(found, KVBudget()) == "close"
    found.losses["close"] += far - close
    assert chosen(found, KVBudget()) == "best", "the share of the gain is too large"
    found.losses["close"] = found.losses["best"] + (close - 0.1)
    assert chosen(found, KVBudget()) == "best", "the difference is small, but certain"


def test_nothing_is_done_unless_something_is_better_by_more_than_chance() -> None:
    noise = torch.randn(N, generator=torch.Generator().manual_seed(3))
    found = compared(none=(1.0, 1.0), lucky=(1.0, 0.5))
    found.losses["lucky"] = found.losses["none"] - 0.01 + 5 * (noise - noise.mean())
    assert chosen(found, KVBudget()) == "none"


def test_a_front_says_what_is_within_the_budget_and_what_is_chosen() -> None:
    found = compared(none=(1.0, 1.0), cheap=(0.6, 1.05), dear=(0.2, 1.5))
    found.errors = {"none": {"a.K": 2.0, "a.V": 0.0}, "cheap": {"a.K": 1.0, "a.V": 0.0}, "dear": {"a.K": 0.5, "a.V": 0}}
    comparison = found.comparison(KVBudget(latency="+10 %"), 0.05, "cheap")
    assert [(each.name, each.within, each.chosen, each.expected) for each in comparison.candidates] == [
        ("none", True, False, 1.0),
        ("cheap", True, True, 0.5),
        ("dear", False, False, 0.25),
    ]
    assert comparison.limits == {"latency": pytest.approx(1.1)}
    assert comparison.floor == 0.05


def setting(clip: str) -> OperandSetting:
    return OperandSetting(None, clip, None)


def test_a_mixture_takes_the_layers_that_gain_most_as_many_as_the_budget_allows() -> None:
    found = compared(none=(1.0, 1.0), dear=(0.2, 1.4))
    operands = [f"{layer}.{axis}" for layer in "abcd" for axis in "KV"]
    found.settings = {"none": dict.fromkeys(operands, setting("none")), "dear": dict.fromkeys(operands, setting("x"))}
    found.errors = {
        "none": dict.fromkeys(operands, 1.0),
        "dear": {name: {"a": 0.9, "b": 0.2, "c": 0.5, "d": 1.5}[name[0]] for name in operands},
    }
    asked = []

    def price(clips: dict[str, str], kv: dict[str, object]) -> KVCost:
        asked.append(len(clips))
        return KVCost(latency=1.0 + 0.05 * len(clips), energy=1.0, cells=1.0, area=1.0)  # 10 % a layer

    (only,) = mixtures(found, KVBudget(latency="+25 %"), price).items()  # type: ignore[arg-type]
    name, settings = only
    assert name == "none; dear in 2 of 4 layers"
    assert set(clips_of(settings)) == {"b.K", "b.V", "c.K", "c.V"}
    assert len(asked) <= 3
    assert mixtures(found, KVBudget(latency="+5 %"), price) == {}  # type: ignore[arg-type]
    assert mixtures(found, KVBudget(), price) == {}, "nothing is beyond"  # type: ignore[arg-type]
