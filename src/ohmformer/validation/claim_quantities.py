"""The quantities that claims may name, computed from runs or measured accuracies. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from ohmformer.cost.network.load import NETWORK
from ohmformer.cost.power.full_load import FullLoad, full_load
from ohmformer.errors import BadInput
from ohmformer.validation.claim_file import Claim
from ohmformer.validation.claim_runs import Evaluator, Priced
from ohmformer.validation.device_quantities import DEVICE_QUANTITIES

MVM = ("array", "dac", "adc", "sample", "shift_add")
"""Components of a matrix product on arrays."""

Compute = Callable[[Evaluator, Claim], float | None]
"""Computes the modeled number of a claim; None if measured accuracies are missing."""


def _ratios(evaluator: Evaluator, claim: Claim, attribute: str) -> list[float]:
    """Return the ratio of an attribute of `against` to that of `runs`, pair by pair."""
    return [getattr(other.run, attribute) / getattr(priced.run, attribute) for priced, other in evaluator.pairs(claim)]


def _first(evaluator: Evaluator, claim: Claim) -> Priced:
    return evaluator.first(claim)


def _efficiency(evaluator: Evaluator, claim: Claim) -> float:
    """Return operations per energy [op/J]."""
    run = _first(evaluator, claim).run
    return run.placement.workload.operations / run.energy


def _efficiency_ratio(evaluator: Evaluator, claim: Claim) -> float:
    """Return how many times more efficient the run is than the one that it is compared with."""
    priced, other = evaluator.pair(claim)
    return other.run.energy / priced.run.energy


def _share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the stages `operations` (of their `components`, if any) in the energy of the stages `of`."""
    priced = _first(evaluator, claim)
    return priced.stage_energy(claim.operations, claim.components) / priced.stage_energy(claim.of)


def _adc_share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the ADCs in the energy of products on the arrays of an engine."""
    stages = [stage for stage in _first(evaluator, claim).run.placement.stages() if stage.engine in claim.operations]
    total = sum(stage.energy.get(name, 0.0) for stage in stages for name in MVM)
    return sum(stage.energy.get("adc", 0.0) for stage in stages) / total


def _time_share(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the stages `operations` in the critical path."""
    path = _first(evaluator, claim).run.timeline.critical_stages()
    return sum(seconds for name, seconds in path.items() if name in claim.operations) / sum(path.values())


def _falls(evaluator: Evaluator, claim: Claim) -> float:
    """Return 1 if the latency ratio falls steadily from its maximum to the last pair, else 0."""
    ratios = _ratios(evaluator, claim, "latency")
    peak = ratios.index(max(ratios))
    tail = ratios[peak:]
    return float(len(tail) > 1 and all(earlier > later for earlier, later in pairwise(tail)))


def _network_packets(evaluator: Evaluator, claim: Claim) -> float | None:
    """Return the packets that a tile sends per cycle in the stage that sends most; None if the limit is unknown."""
    placement = _first(evaluator, claim).run.placement
    chip = placement.hardware.chip
    if chip is None or chip.network_max_load is None:
        return None
    return placement.loads.get(NETWORK, 0.0) * chip.network_max_load


def _layer_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Return the number of arrays with weights of one layer; a differential pair counts once."""
    placed = _first(evaluator, claim)
    return _weight_arrays(placed, ("qkv", "output", "ffn1", "ffn2")) / placed.weight_array.polarities


def _attention_arrays(evaluator: Evaluator, claim: Claim) -> float:
    """Return the number of arrays with W_Q, W_K, W_V, K and V of one layer; a differential pair counts once."""
    return _self_attention(_first(evaluator, claim))


def _attention_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of attention arrays that the run saves."""
    priced, other = evaluator.pair(claim)
    return 1 - _self_attention(priced) / _self_attention(other)


def _energy_saving(evaluator: Evaluator, claim: Claim) -> float:
    """Return the share of the energy of some stages of one layer that the run saves."""
    priced, other = evaluator.pair(claim)
    return 1 - priced.stage_energy(claim.operations) / other.stage_energy(claim.operations)


def _self_attention(placed: Priced) -> float:
    """Return the number of arrays of self-attention of one layer; a differential pair counts once."""
    array = placed.settings.hardware.attention.array
    layers = sum(1 for layer in placed.run.placement.layers if layer.scores is not None)
    kv_arrays = sum(count for role, count in placed.run.placement.arrays.items() if role != "projection") / layers
    return (_weight_arrays(placed, ("qkv",)) + kv_arrays) / array.polarities


def _weight_arrays(placed: Priced, stages: tuple[str, ...]) -> float:
    """Return the number of arrays with weights of some stages of one layer: those read in one cycle of one token."""
    work = placed.run.placement.workload
    layer = placed.run.placement.layers[placed.layer]
    array = placed.weight_array
    read = sum(stage.counts.activations for stage in layer.stages if stage.name in stages)
    return read / (array.cycles() * layer.tokens * work.batch)


def _tokens_per_second(evaluator: Evaluator, claim: Claim) -> float:
    """Return the rate at which a batch generates tokens [1/s].

    The first run is the pass over the prompts; the other two are the first and the last decoding step. Steps between
    them take the time on the line through both.
    """
    if len(claim.runs) != 3:
        raise BadInput(f"{claim.id}: runs: has {len(claim.runs)} names; give the prompts, the first and the last token")
    prompt, first, last = (evaluator.run(name).run for name in claim.runs)
    work = last.placement.workload
    steps = work.context - first.placement.workload.context + 1
    if steps < 1:
        raise BadInput(f"{claim.id}: runs: the last token has a shorter context than the first; exchange them")
    return work.batch * steps / (prompt.latency + steps * (first.latency + last.latency) / 2)


def _full_load(evaluator: Evaluator, claim: Claim) -> FullLoad:
    """Return the hardware of the first run at full load."""
    return full_load(_first(evaluator, claim).settings.hardware, claim.tiles)


def _of_parts(claim: Claim, values: Mapping[str, float]) -> float:
    """Return the sum over the parts that a claim names; over all if it names none."""
    return sum(values.get(name, 0.0) for name in claim.components) if claim.components else sum(values.values())


def _peak_efficiency(evaluator: Evaluator, claim: Claim) -> float:
    """Return operations per energy of the named parts at full load [op/J]."""
    load = _full_load(evaluator, claim)
    return load.rate / _of_parts(claim, load.power)


QUANTITIES: dict[str, tuple[str, Compute]] = {
    "tokens_per_second": ("", _tokens_per_second),
    "latency": ("s", lambda evaluator, claim: _first(evaluator, claim).run.latency),
    "energy": ("J", lambda evaluator, claim: _first(evaluator, claim).run.energy),
    "layer_energy": ("J", lambda evaluator, claim: _first(evaluator, claim).stage_energy(claim.of, claim.components)),
    "layer_time": ("s", lambda evaluator, claim: _first(evaluator, claim).stage_time(claim.of)),
    "network_packets": ("", _network_packets),
    "speedup": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "latency"))),
    "mean_speedup": ("", lambda evaluator, claim: sum(_ratios(evaluator, claim, "latency")) / len(claim.runs)),
    "energy_ratio": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "energy"))),
    "power_ratio": ("", lambda evaluator, claim: max(_ratios(evaluator, claim, "power"))),
    "least_power_ratio": ("", lambda evaluator, claim: min(_ratios(evaluator, claim, "power"))),
    "efficiency": ("op/J", _efficiency),
    "efficiency_ratio": ("", _efficiency_ratio),
    "energy_share": ("%", _share),
    "energy_rest": ("%", lambda evaluator, claim: 1 - _share(evaluator, claim)),
    "adc_share": ("%", _adc_share),
    "time_share": ("%", _time_share),
    "peak_rate": ("op/s", lambda evaluator, claim: _full_load(evaluator, claim).rate),
    "peak_power": ("W", lambda evaluator, claim: _of_parts(claim, _full_load(evaluator, claim).power)),
    "peak_area": ("m^2", lambda evaluator, claim: _of_parts(claim, _full_load(evaluator, claim).area)),
    "peak_efficiency": ("op/J", _peak_efficiency),
    "falls": ("", _falls),
    "layer_arrays": ("", _layer_arrays),
    "attention_arrays": ("", _attention_arrays),
    "attention_saving": ("%", _attention_saving),
    "energy_saving": ("%", _energy_saving),
    "accuracy": ("%", lambda evaluator, claim: evaluator.accuracies(claim).accuracy(claim.series, claim.gamma)),
    "returned": ("%", lambda evaluator, claim: evaluator.accuracies(claim).returned(claim.series, claim.gamma)),
    "above": ("", lambda evaluator, claim: evaluator.accuracies(claim).above(claim.series, claim.gamma)),
    "grows": ("", lambda evaluator, claim: evaluator.accuracies(claim).grows(claim.series, claim.gamma)),
    "sigma": ("", lambda evaluator, claim: evaluator.accuracies(claim).sigma),
    "misfit": ("%", lambda evaluator, claim: evaluator.accuracies(claim).misfit),
    **DEVICE_QUANTITIES,
}
"""Quantity -> SI unit, and the function that computes it from the runs or series of a claim."""

YES_OR_NO = ("falls", "above", "grows")
"""Quantities that are 1 (yes) or 0 (no)."""
