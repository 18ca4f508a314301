"""`calibrate` for a budget: what is chosen is within it, is what runs then, and costs what the cost half says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer import BadInput, KVBudget, KVCost
from ohmformer.device.spec import WriteVerify
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.nn.calibration import recipes
from ohmformer.nn.calibration.budget_recipes import Combined, recipes_within
from ohmformer.nn.calibration.calibrate import calibrate, protectable_operands
from ohmformer.nn.calibration.recipes import Recipe, fit_range_to_observed
from ohmformer.nn.calibration.remedies import recipes_of
from ohmformer.nn.convert.handle import crossbars
from tests.cases import quick_first
from tests.nn.models import Decoder

INPUTS = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def vit() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTransformer(size=8, patch=4, width=16, depth=2, heads=2, classes=3).eval()


def hardware(gamma: float, **changes: Any) -> of.Accelerator:
    found = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", gamma)
    for path, value in changes.items():
        found = of.replace(found, path.replace("__", "."), value)
    return found


def converted(gamma: float, **changes: Any) -> nn.Module:
    return of.convert(vit(), hardware(gamma, **changes), sample=INPUTS, level="noise")


def prices(gamma: float) -> Any:
    return of.kv_prices(of.trace(vit(), INPUTS[:1]), hardware(gamma))


@pytest.fixture(scope="module")
def free() -> of.Calibration:
    return calibrate(converted(6.0), INPUTS, budget=KVBudget(), price=prices(6.0))


@pytest.mark.slow
def test_without_a_limit_residual_writing_is_chosen_at_strong_noise(free: of.Calibration) -> None:
    assert free.comparison is not None
    names = [each.name for each in free.comparison.candidates]
    assert names == [recipe.label for recipe in recipes_within(KVBudget())]
    assert all(spec.residual is not None for spec in free.kv.values())
    assert len(free.kv) == 4
    assert free.losses[free.recipe] < 0.2 * free.losses["none"] + 0.8 * free.comparison.floor
    assert [each.name for each in free.comparison.candidates if each.chosen] == [free.recipe]
    assert all(each.within for each in free.comparison.candidates)


def test_plain_auto_is_what_it_was(free: of.Calibration) -> None:
    """The candidates of `auto` lose the same to the bit within a budget, and `auto` alone has no others."""
    plain = calibrate(converted(6.0), INPUTS)
    assert plain.comparison is None
    assert "comparison" not in plain.canonical()
    assert list(plain.losses) == ["none", "clip", "firm clip", "hadamard", "balanced"]
    assert plain.losses == {name: free.losses[name] for name in plain.losses}
    assert all(spec.residual is None and spec.redundancy is None for spec in plain.kv.values())


def test_costs_are_those_of_the_cost_half(free: of.Calibration) -> None:
    assert free.comparison is not None
    (chosen,) = (each for each in free.comparison.candidates if each.chosen)
    run = of.simulate(of.trace(vit(), INPUTS[:1]), hardware(6.0), kv=free.kv)
    assert chosen.cost is not None
    assert (chosen.cost.latency, chosen.cost.energy, chosen.cost.area) == (run.latency, run.energy, run.area)
    assert chosen.cost.lifetime == pytest.approx(run.lifetime())
    costs = {each.name: each.cost for each in free.comparison.candidates}
    plain, doubled = costs["none"], costs["hadamard, 2 copies"]
    assert plain is not None
    assert doubled is not None
    assert (doubled.cells, doubled.writes) == (2 * plain.cells, 2 * (plain.writes or 0))
    residual = costs["range and radix, residual"]
    assert residual is not None
    assert (residual.cells, residual.writes, residual.area) == (plain.cells, plain.writes, plain.area)
    assert residual.latency > 1.2 * plain.latency
    assert residual.energy > plain.energy
    expected = {each.name: each.expected for each in free.comparison.candidates}
    assert expected["none"] == 1.0
    assert (expected["hadamard, residual"] or 9) < 0.6 * (expected["hadamard"] or 0)


@pytest.mark.parametrize("latency", quick_first(["+30 %", "+0 %"], 1))
def test_what_is_chosen_is_within_the_budget_and_is_what_runs(free: of.Calibration, latency: str) -> None:
    model, budget, price = converted(6.0), KVBudget(latency=latency, cells=1.0), prices(6.0)
    found = calibrate(model, INPUTS, budget=budget, price=price)
    assert found.comparison is not None
    cost, plain = price(found.clips, found.kv), price({}, {})
    assert budget.holds(cost, plain)
    assert cost.cells <= plain.cells
    beyond = [each for each in found.comparison.candidates if not each.within]
    assert beyond, "nothing costs more, so that nothing is tested"
    assert all(each.cost is not None and not budget.holds(each.cost, plain) for each in beyond)
    assert not any("copies" in each.name for each in found.comparison.candidates), "cells = 1 leaves no room for copies"
    set_now = {op.name: op.conditioner.spec for op in protectable_operands(crossbars(model)) if op.conditioner}
    assert set_now == found.kv
    assert found.losses[found.recipe] <= found.losses["none"]
    assert found.losses[found.recipe] >= free.losses[free.recipe] - 1e-3
    if latency == "+0 %":
        assert calibrate(model, INPUTS, budget=budget, price=price) == found, "calibrating twice is calibrating once"


@pytest.mark.slow
def test_residual_writing_in_some_layers_fills_a_budget() -> None:
    found = calibrate(converted(6.0), INPUTS, budget=KVBudget(latency="+40 %", cells=1.0), price=prices(6.0))
    assert found.comparison is not None
    mixed = [each for each in found.comparison.candidates if "in 1 of 2 layers" in each.name]
    assert mixed
    assert all(each.within for each in mixed)


def test_without_noise_nothing_is_done() -> None:
    found = calibrate(converted(0.0), INPUTS, budget=KVBudget(latency=2.0), price=prices(0.0))
    assert (found.recipe, found.kv, found.clips) == ("none", {}, {})
    assert found.comparison is not None
    assert [(each.name, each.chosen, each.within) for each in found.comparison.candidates] == [("none", True, True)]


def test_no_price_is_needed_where_nothing_is_limited() -> None:
    found = calibrate(converted(6.0), INPUTS[:4], remedy=[Combined(basis="hadamard", redundancy=2)], budget=KVBudget())
    assert found.comparison is not None
    assert [each.cost for each in found.comparison.candidates] == [None, None]
    assert found.recipe == "hadamard, 2 copies"


def test_the_read_back_of_the_budget_is_that_of_the_candidates() -> None:
    budget = KVBudget(residual={"bits": 6, "range": 1.25}, cells=1)
    written = [recipe for recipe in recipes_within(budget) if isinstance(recipe, Combined)]
    assert {recipe.residual for recipe in written} == {None, budget.residual}
    assert len(recipes_within(budget)) == 9
    assert len(recipes_within(KVBudget(cells=2))) == 15


def test_first_tokens_may_stay_digital_where_the_budget_says_so() -> None:
    budget = KVBudget(cells=1.0, first_tokens=2)
    labels = [recipe.label for recipe in recipes_within(budget)]
    assert [label for label in labels if "first 2 digital" in label] == [
        f"{basis}{how}, first 2 digital"
        for how in ("", ", residual")
        for basis in ("range and radix", "hadamard", "balanced")
    ]
    remedy = ["hadamard", Combined(basis="hadamard", first_tokens=2)]
    found = calibrate(converted(6.0), INPUTS, remedy=remedy, budget=budget, price=prices(6.0))
    assert found.comparison is not None
    costs = {each.name: each.cost for each in found.comparison.candidates}
    digital, plain = costs["hadamard, first 2 digital"], costs["hadamard"]
    assert digital is not None
    assert plain is not None
    assert digital.cells <= plain.cells
    assert (digital.writes or 0) < (plain.writes or 0)
    losses = found.losses
    assert losses["hadamard, first 2 digital"] < losses["none"]
    with pytest.raises(BadInput, match="99 digital tokens"):
        calibrate(converted(6.0), INPUTS, remedy=[Combined(first_tokens=99)], budget=KVBudget())


@pytest.mark.slow
def test_arrays_that_support_no_residual_writing_are_written_at_once() -> None:
    """`write_verify` writes cells again, so residual writing is refused there."""
    verify = WriteVerify(writes=2, tolerance=0.05)
    for lossy, rest in (
        ({"attention__key__array__write_verify": verify}, {"V"}),
        ({"attention__array__write_verify": verify}, set()),
    ):
        model = converted(6.0, **lossy)
        remedy = ["hadamard", Combined(basis="hadamard", residual={"bits": "ideal"}), Combined()]
        found = calibrate(model, INPUTS[:6], remedy=remedy, budget=KVBudget())
        operands = protectable_operands(crossbars(model))
        assert found.comparison is not None
        names = [each.name for each in found.comparison.candidates]
        assert ("hadamard, residual" in names) == bool(rest), "without it, the candidate is `hadamard`"
        assert len(operands) == 4
        residual = {name[-1] for name, spec in found.kv.items() if spec.residual is not None}
        assert residual <= rest


def test_a_decoder_is_calibrated_with_ranges_that_stay() -> None:
    ids = torch.randint(0, 20, (6, 7), generator=torch.Generator().manual_seed(1))
    model = of.convert(Decoder().eval(), hardware(6.0), sample=ids, level="noise")
    remedy = [Combined(basis="balanced", residual={"bits": "ideal"}), "balanced"]
    found = calibrate(model, ids, budget=KVBudget(), remedy=remedy)
    assert found.recipe == "balanced, residual"
    for operand in protectable_operands(crossbars(model)):
        assert operand.conditioner is not None
        assert operand.conditioner.mean is not None
        assert operand.w_range is not None


def test_sram_needs_nothing_at_any_price() -> None:
    sram = of.load("xformer_tvlsi_2023")
    model = of.convert(vit(), sram, sample=INPUTS, level="noise")
    price = of.kv_prices(of.trace(vit(), INPUTS[:1]), sram)
    found = calibrate(model, INPUTS, budget=KVBudget(latency=1.0, cells=1.0), price=price)
    assert (found.recipe, found.kv) == ("none", {})
    assert price({}, {}).cells == 0


def test_bad_budgets_and_prices_are_refused_in_one_line() -> None:
    model = converted(6.0)
    price: Any = prices(6.0)
    for options, said in (
        ({"budget": KVBudget(energy="+10 %")}, r"^budget.energy = 1.1: there is no accelerator whose cost it limits"),
        ({"price": price}, r"^calibrate: price decides nothing without a budget"),
        ({"budget": {"auto": True}}, r"^calibrate: budget is a dict"),
        ({"budget": KVBudget(latency=1.1), "price": 3.0}, r"^calibrate: price is a float, 3.0; give a function"),
        (
            {"budget": KVBudget(), "price": lambda clips, kv: 1.0},
            r"^calibrate: price returns a float, 1.0; return a KVCost",
        ),
        ({"budget": KVBudget(), "price": lambda kv: price({}, kv)}, r"^calibrate: price fails \(TypeError"),
    ):
        with pytest.raises(BadInput, match=said) as error:
            calibrate(model, INPUTS, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    assert all(operand.conditioner is None for operand in protectable_operands(crossbars(model)))
    with pytest.raises(BadInput, match=r"^kv_prices: workload is"):
        of.kv_prices(vit(), hardware(1.0))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"hardware.chip: is missing"):
        of.kv_prices(of.trace(vit(), INPUTS[:1]), of.load("generic_amplitude"))


def test_a_candidate_of_ones_own_stands_beside_the_others() -> None:
    class Halved(Recipe):
        """Ranges of half the maximum."""

        kind: Literal["halved"] = "halved"

        def set_up(self, operand: Any) -> None:
            from ohmformer.nn.calibration.recipes import fitted

            operand.condition(fitted(operand, of.Conditioning(range=0.5, radix=1)))
            fit_range_to_observed(operand)

    def price(clips: Mapping[str, Any], kv: Mapping[str, Any]) -> KVCost:
        return KVCost(latency=1.0 + len(kv), energy=1.0, cells=1, area=0)

    found = calibrate(converted(6.0), INPUTS, remedy=["hadamard", Halved()], budget=KVBudget(latency=2), price=price)
    assert found.comparison is not None
    assert [(each.name, each.within) for each in found.comparison.candidates] == [
        ("none", True),
        ("hadamard", False),
        ("halved", False),
    ]
    assert found.recipe == "none"


def test_former_names_say_the_present_ones() -> None:
    with pytest.raises(of.BadInput, match=r"^remedy = 'written': is now called 'combined'; rename it$"):
        recipes_of(["written"])
    with pytest.raises(of.BadInput, match="Combined: copies: is now called redundancy; rename it"):
        Combined(copies=2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match=r"recipes\.widen is now .*recipes\.fit_range_to_observed; rename it"):
        _ = recipes.widen  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'narrow'"):
        _ = recipes.narrow  # type: ignore[attr-defined]
