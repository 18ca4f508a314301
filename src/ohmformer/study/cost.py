"""Computes the costs of a study: of a model on an accelerator with a dataflow. Free of torch for tables of dimensions.

A study file of the cost half is that of the accuracy half, with `[dataflow]` and `[cost]`. The cost half ignores
`simulation`, `trials` and `seed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from ohmformer import catalog
from ohmformer.array.prices.differences import differences
from ohmformer.array.spec import Crossbar
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.network.load import link_notes, most_of
from ohmformer.cost.stage import By
from ohmformer.dataflow.lifetime import Lifetime, lifetime
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.hardware.chip import Chip
from ohmformer.hardware.price_notes import (
    array_notes,
    arrays_of,
    mitigation_notes,
    tile_note,
    unit_notes,
    unlike_tiles,
)
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.models.sources import bundled_file, split
from ohmformer.study.chips import chip_notes, chips_result
from ohmformer.study.failures import Failure, collected, named_point, raise_failures
from ohmformer.study.read_study import cost_half, make_whole, read_whole, whole_settings
from ohmformer.study.results.costs import CostResult, EnergyBy, ServedResult, Wear
from ohmformer.study.results.document import SCHEMA
from ohmformer.study.results.key import versions
from ohmformer.study.results.part import made
from ohmformer.study.results.priced_choice import rules_with_choice, study_key
from ohmformer.study.results.spec import Chosen, PricedPoint, StudyCosts
from ohmformer.study.spec import CostOptions, CostSettings, Study
from ohmformer.study.sweep import Document
from ohmformer.terminal.progress import bar
from ohmformer.workload.shapes import PREFIX, shapes
from ohmformer.workload.spec import Workload

NO_USE_OF_DRAM = "hardware.chip.dram changes nothing, since no table, weights, keys or values are off the chip"
"""Note on a memory that nothing uses."""

MANY = 100
"""Number of points from which on a progress bar is shown."""

MOST_DIFFERENCES = 3
"""Number of differences between published and priced arrays that a note lists."""


def read_costs(name: str, sets: Sequence[str] = ()) -> Study[CostSettings]:
    """The cost half of a study file, or of a library entry, with changes 'PATH=VALUE'.

    Raises:
        BadInput: the file or a change cannot be used; one line with file, path, value and remedy.
    """
    return cost_half(read_whole(name, sets))


def make_costs(
    document: Document, sets: Sequence[str] = (), *, where: str = "study", folder: Path | None = None
) -> Study[CostSettings]:
    """The cost half of a document; `where` names it in messages, hardware files are looked up in `folder` first."""
    return cost_half(make_whole(document, sets, where=where, folder=folder))


def cost_settings(document: Document, folder: Path | None = None) -> CostSettings:
    """The settings of the cost half, of a document without name and sweep.

    Raises:
        BadInput: one line with path, value and remedy.
    """
    return whole_settings(document, folder).costs()


def runs_of(settings: CostSettings, chosen: Chosen | None = None) -> list[Run]:
    """The simulated passes of a point: one, or one for each step of decoding.

    A real model is traced with the rules of the study alone, since no choice moves a product to another engine.

    Args:
        settings: of the cost half.
        chosen: what calibration chose for K, V and weights.

    Raises:
        BadInput: the model has no such phase or length, or the accelerator no prices.
    """
    works, options = works_of(settings), cost_options(settings)
    fixed = options.pop("kv")
    if chosen is not None:
        options["rules"] = dict(rules_with_choice(settings.rules, chosen))
    try:
        return [
            simulate(work, settings.hardware, settings.dataflow, kv=_of_workload(chosen, work) or fixed, **options)
            for work in works
        ]
    except BadInput as error:
        raise BadInput(
            f"mitigation.{error}" if str(error).startswith(("clip", "kv", "weights.")) else str(error)
        ) from error


def cost_options(settings: CostSettings) -> dict[str, Any]:
    """The arguments of `simulate` and `serve` that mitigation and rules decide."""
    clip, kv = settings.mitigation.clip, settings.mitigation.kv
    return {
        "clip": clip if isinstance(clip, KVClip) else None,
        "rules": dict(settings.rules),
        "weights": settings.mitigation.fixed_weights,
        "kv": kv if isinstance(kv, Conditioning) else None,
    }


def _of_workload(chosen: Chosen | None, work: Workload) -> dict[str, Conditioning]:
    """The chosen conditionings of the operands of a workload; a phase need not have all operands of the model."""
    names = {op.name for op in work.dynamic}
    return {name: spec for name, spec in (chosen.kv if chosen else {}).items() if name in names}


def works_of(settings: CostSettings) -> list[Workload]:
    """The workload of each pass.

    Raises:
        BadInput: the model has no such phase or length, or its fields are those of requests.
    """
    model = settings.model
    if model.steps > 1 and model.phase != "decode":
        raise BadInput(f"model.steps = {model.steps}: only decoding has steps; set phase = 'decode'")
    for field, value in (("generate", model.generate), ("chunk", model.chunk)):
        if value is not None:
            raise BadInput(
                f"model.{field} = {value}: is for requests, which `ohmformer serve` prices; take that verb, or leave "
                "it out"
            )
    name = table_name(settings)
    if name is None:
        from ohmformer.study.default_inputs import traced_steps

        return traced_steps(model, settings.task, settings.rules)
    contexts = range(model.context, model.context + model.steps)
    sizes: dict[str, Any] = {"tokens": model.seq_len, "batch": model.batch, "phase": model.phase}
    return [shapes(name, **sizes, context=context) for context in contexts]


def table_name(settings: CostSettings) -> str | None:
    """The name or file of a study's table of dimensions; None for a real model.

    Raises:
        BadInput: there is no such table, or rules are given beside it.
    """
    model, tables = settings.model, catalog.entries("shapes")
    if model.source in tables:
        raise BadInput(f"{model.where}: is a table of dimensions; write '{PREFIX}{model.source}'")
    sources = [f"{PREFIX}{entry}" for entry in tables]
    if not model.source.startswith(PREFIX):
        if split("model", model.source, sources)[0] == "bundled":
            bundled_file("model", model.source, sources)
        return None
    name = model.source.removeprefix(PREFIX)
    if name not in tables and not name.endswith(".toml"):
        raise BadInput(f"{model.where}: no such table of dimensions; {suggest(model.source, sources)}")
    try:
        catalog.locate("shapes", name)
    except ValueError as error:
        raise BadInput(f"{model.where}: {error}") from None
    if settings.rules:
        raise BadInput(f"rules: name modules of a real model, and {shown(model.source)} has none; leave them out")
    return name


def price(settings: CostSettings, chosen: Chosen | None = None) -> CostResult:
    """Compute the cost of one point.

    Args:
        settings: of the cost half.
        chosen: what calibration chose for K, V and weights.

    Raises:
        BadInput: as `runs_of`, or a number is not finite.
    """
    runs = runs_of(settings, chosen)
    last = runs[-1]
    energy_by = {kind: sum_by_name(*(run.timeline.energy_by(kind) for run in runs)) for kind in get_args(By)}
    latency, energy = sum(run.latency for run in runs), sum(energy_by["component"].values())
    batch = last.placement.workload.batch
    endurance = _lifetime(settings, runs)
    return made(
        CostResult,
        latency_s=latency,
        energy_J=energy,
        power_W=energy / latency,
        area_m2=last.area,
        throughput_per_s=batch / latency,
        tokens_per_s=batch * sum(run.placement.workload.tokens for run in runs) / latency,
        efficiency_op_per_J=sum(run.placement.workload.operations for run in runs) / energy,
        lifetime_s=finite(endurance.seconds) if endurance else None,
        lifetime=wear_result(endurance),
        utilization=_mean([(run.utilization, run.latency / latency) for run in runs]),
        energy_by=made(EnergyBy, "energy_by.", **energy_by),
        critical_path_s=sum_by_name(*(run.timeline.critical_stages() for run in runs)),
        buffer_B=last.timeline.peak_buffer(),
        load=most_of(run.placement.loads for run in runs),
        counts=_counts(runs),
        chips=chips_result([run.placement for run in runs]),
        digital_token_share=last.placement.digital_token_share,
    )


def _counts(runs: list[Run]) -> dict[str, float]:
    """Arrays and tiles of the last pass, and the events of all passes."""
    placement = runs[-1].placement
    events = [run.placement.counts for run in runs]
    total = sum(events[1:], events[0])
    return {
        "arrays": sum(placement.arrays.values()),
        "arrays_per_polarity": placement.arrays_per_polarity,
        "tiles": placement.tiles,
        "cell_writes": total.cell_writes + sum(_rewritten(run) for run in runs),
        "cell_reads": total.cell_reads,
        "activations": total.activations,
        "adc_conversions": total.adc_conversions,
    }


def _rewritten(run: Run) -> int:
    """Number of writes of cells in refreshes."""
    refresh = run.placement.refresh
    return run.timeline.refreshes * refresh.cell_writes if refresh else 0


def passes_and_refreshes(options: CostOptions, runs: list[Run]) -> tuple[float, float]:
    """Passes per second, those of the study or one right after another, and refreshes of all cells in a pass."""
    seconds = sum(run.latency for run in runs) / len(runs)
    return options.rate or 1 / seconds, sum(run.timeline.refreshes for run in runs) / len(runs)


def _lifetime(settings: CostSettings, runs: list[Run]) -> Lifetime | None:
    """The lifetime at the rate of the study, or with one pass right after another; None if no endurance is known."""
    options = settings.cost
    rate, again = passes_and_refreshes(options, runs)
    return lifetime(runs[-1].placement, rate, leveling=options.leveling, spare=options.spare, refreshes=again)


def wear_result(estimate: Lifetime | None) -> Wear | None:
    """The quantities from which a lifetime was computed; None if there is none."""
    if estimate is None:
        return None
    source = dict(estimate.cell.provenance).get("endurance") if estimate.cell else None
    parts = (source.kind, source.source, source.where, source.how) if source else ()
    return made(
        Wear,
        "lifetime.",
        role=estimate.role,
        rate_per_s=estimate.rate,
        writes_per_cell_s=estimate.writes_per_second,
        pulses_per_write=estimate.pulses,
        endurance=finite(estimate.endurance),
        endurance_source=", ".join(part for part in parts if part),
        arrays=estimate.arrays,
    )


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(parts: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Weighted sum of the shares of several runs."""
    return sum_by_name(*({name: value * weight for name, value in shares.items()} for shares, weight in parts))


Price = Callable[[CostSettings, Chosen | None], CostResult]
"""`price`, or a function that also stores what it returns (see `stored_costs`)."""


def study_costs(
    study: Study[CostSettings],
    chosen: Sequence[Chosen | None] = (),
    *,
    price: Price = price,
    errors: Path | None = None,
) -> StudyCosts:
    """Compute the costs of all points of a study.

    Args:
        study: its points.
        chosen: the argument `chosen` of `price` for each point; empty if nothing was chosen.
        price: computes the cost of a point.
        errors: folder of errors.txt, if all other points are to be priced before one without a price is refused; None
            to refuse it at once.

    Raises:
        BadInput: a point has no price; one line with the file, the field and the remedy.
    """
    failures: list[Failure] = []
    pairs = list(zip(study.points, chosen or [None for _ in study.points], strict=True))
    at_once, priced = errors is None or len(pairs) == 1, []
    with bar("prices", len(pairs), show=len(pairs) >= MANY) as display:
        for point, choice in pairs:
            with named_point(study, point) if at_once else collected(failures, point):
                priced.append(PricedPoint(set=point.set, label=point.label, cost=price(point.settings, choice)))
            display.advance()
    if failures and errors is not None:
        counts = {"total": len(pairs), "done": len(priced)}
        raise_failures(failures, **counts, what="priced", where=study.where, folder=errors)
    return StudyCosts(
        schema=SCHEMA,
        study=study.name,
        key=study_key((point.settings, choice) for point, choice in pairs),
        versions=versions(),
        points=tuple(priced),
        notes=tuple(notes([point.settings for point in study.points], [point.cost for point in priced])),
    )


def notes(settings: list[CostSettings], costs: list[CostResult]) -> list[str]:
    """Notes on what prices hold for and on what has no effect, each once, for points and what they cost."""
    loads = load_notes(settings, costs)
    return [
        *mitigation_notes((each.hardware, each.mitigation) for each in settings),
        *memory_notes(settings, costs),
        *loads,
        *price_notes(settings),
        *chip_notes(costs),
    ]


def load_notes(settings: Sequence[CostSettings], costs: Sequence[CostResult | ServedResult]) -> list[str]:
    """Notes on whether network and memories carry the bytes of all points, once for all chips with the same limits."""
    groups: dict[tuple[object, ...], tuple[Chip, list[dict[str, float]]]] = {}
    for point, cost in zip(settings, costs, strict=True):
        chip = point.hardware.chip
        if chip is not None and cost.counts["tiles"]:
            limits = chip.network_packet, chip.network_max_load, chip.buffer_bandwidth, chip.overload
            groups.setdefault(limits, (chip, []))[1].append(cost.load)
    return list(dict.fromkeys(note for chip, loads in groups.values() for note in link_notes(chip, most_of(loads))))


def memory_notes(settings: list[CostSettings], costs: list[CostResult]) -> list[str]:
    """A note if the accelerator of a point has a memory off the chip that nothing uses."""
    chips = [point.hardware.chip for point in settings]
    unused = [
        chip is not None and chip.dram is not None and not cost.buffer_B.get("kept_off_chip")
        for chip, cost in zip(chips, costs, strict=True)
    ]
    if not any(unused):
        return []
    where = "" if all(unused) else f" at {sum(unused)} of {len(unused)} points"
    return [NO_USE_OF_DRAM + where]


def price_notes(settings: list[CostSettings]) -> list[str]:
    """Notes on what prices of arrays and tiles hold for, and on readings of their timing, each once."""
    laws: dict[tuple[str, str], dict[str, None]] = {}
    tiles: dict[str, dict[str, None]] = {}
    every: list[tuple[str, Crossbar]] = []
    for point in settings:
        arrays = list(arrays_of(point.hardware))
        arrays += [(f"rules[{pattern!r}]", rule.array) for pattern, rule in point.rules if rule.array is not None]
        every += arrays
        for place, array in arrays:
            for found in differences(array) if array.cost is not None else []:
                laws.setdefault((place, found.law), {})[found.what] = None
        if point.hardware.chip is not None:
            held, unlike = unlike_tiles(point.hardware.chip, arrays)
            tiles.setdefault(held, {}).update(dict.fromkeys(unlike))
    derived = [
        f"prices of {place} arrays are derived by {law}: {', '.join(list(texts)[:MOST_DIFFERENCES])}"
        + (f" and {len(texts) - MOST_DIFFERENCES} more" if len(texts) > MOST_DIFFERENCES else "")
        for (place, law), texts in laws.items()
    ]
    others = [tile_note(held, list(found)) for held, found in tiles.items() if found]
    return [*derived, *array_notes(every), *others, *unit_notes(point.hardware for point in settings)]
