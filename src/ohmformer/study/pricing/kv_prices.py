"""Prices of candidates for K and V, as functions that calibration calls: the only link from the cost half to a budget.

The functions hold frozen settings alone, so they are made anew in every process that evaluates a point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ohmformer.dataflow.lifetime import lifetime
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.errors import BadInput, check_type
from ohmformer.hardware.rules import OrderedRules, RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mitigation.budget import KVBudget, KVCost, PriceKV
from ohmformer.mitigation.spec import Clip, Conditioning, WeightMitigation
from ohmformer.study.cost import finite, passes_and_refreshes, runs_of
from ohmformer.study.join_cost import with_chosen, with_clips
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostOptions, CostSettings, Settings
from ohmformer.workload.spec import Workload

Clips = Mapping[str, Clip | tuple[Clip, ...]]


def kv_prices(
    workload: Workload,
    hardware: Accelerator,
    *,
    dataflow: Dataflow | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
) -> PriceKV:
    """Return the function that `of.calibrate` takes as `price`: the cost of one pass for given clips and conditionings.

    Args:
        workload: a pass of the model, from `of.trace`, whose operands have the names of the converted model.
        hardware: the accelerator.
        dataflow: the dataflow; None for one layer after another.
        rules: exceptions for some operands, as those of the conversion.
        weights: mitigation of static weights.

    Raises:
        BadInput: the accelerator has no prices for the workload.
    """
    check_type("kv_prices", "workload", workload, Workload, "of.trace(model, sample)")
    check_type("kv_prices", "hardware", hardware, Accelerator, "of.load(NAME)")
    flow = LayerSerial() if dataflow is None else dataflow
    prices = _Prices(workload, hardware, flow, RuleBook.read(rules).rules, weights)
    prices({}, {})
    return prices


@dataclass(frozen=True)
class _Prices:
    """The price of a workload on an accelerator."""

    workload: Workload
    hardware: Accelerator
    dataflow: Dataflow
    rules: OrderedRules
    weights: WeightMitigation | None

    def __call__(self, clips: Clips, kv: Mapping[str, Conditioning]) -> KVCost:
        """Return the cost of one pass."""
        options: dict[str, Any] = {"rules": dict(with_clips(self.rules, clips)), "weights": self.weights}
        return _cost_of([simulate(self.workload, self.hardware, self.dataflow, kv=kv or None, **options)])


def price_of(settings: Settings) -> PriceKV | None:
    """The function that prices candidates at a point; None if its study has no budget, or no limit and no prices.

    Raises:
        BadInput: the budget has a limit, and the cost half has no price for the point.
    """
    costs, budget = settings.pricing, settings.mitigation.kv
    if costs is None or not isinstance(budget, KVBudget):
        return None
    price = partial(kv_cost, costs)
    try:
        price({}, {})
    except BadInput as error:
        if not budget.limits:
            return None
        name = next(iter(budget.limits))
        raise BadInput(f"mitigation.kv.{name}: is a limit, but there is no price: {error}") from error
    return price


def kv_cost(settings: CostSettings, clips: Clips, kv: Mapping[str, Conditioning]) -> KVCost:
    """The cost of one pass of a point, or of its requests, for given clips and conditionings.

    Args:
        settings: of the cost half.
        clips: operand -> its clip, or one for each head.
        kv: operand -> its conditioning.

    Raises:
        BadInput: the point has no price.
    """
    chosen = Chosen(recipe="candidate", clips=dict(clips), kv=dict(kv))
    point = with_chosen(settings, chosen)
    if settings.model.generate is None:
        return _cost_of(runs_of(point, chosen.kv), settings.cost)
    from ohmformer.study.serving import served_of

    served, options = served_of(point, chosen.kv), settings.cost
    worn = served.first_worn(options.rate, leveling=options.leveling, spare=options.spare)
    return KVCost(
        latency=served.latency,
        energy=served.energy,
        cells=_cells(served.machine.kv),
        area=served.area,
        lifetime=finite(worn.seconds) if worn else None,
    )


def _cost_of(runs: Sequence[Run], options: CostOptions | None = None) -> KVCost:
    """The cost of all passes of a point; cells, area and lifetime are those of the last pass."""
    last, options = runs[-1].placement, options or CostOptions()
    rate, again = passes_and_refreshes(options, list(runs))
    worn = lifetime(last, rate, leveling=options.leveling, spare=options.spare, refreshes=again)
    return KVCost(
        latency=sum(run.latency for run in runs),
        energy=sum(run.energy for run in runs),
        cells=0 if last.machine is None else _cells(last.machine.kv),
        area=last.area,
        writes=sum(run.placement.counts.cell_writes for run in runs),
        lifetime=finite(worn.seconds) if worn else None,
    )


def _cells(arrays: Sequence[Any]) -> int:
    """Number of memristive cells that hold K and V."""
    return sum(entry.cells for entry in arrays if isinstance(entry.engine, CrossbarEngine))
