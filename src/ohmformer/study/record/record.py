"""Makes the record of a study: command, settings, seed, hardware with its sources, what its first point rests on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ohmformer import catalog
from ohmformer.changed_copy import with_values
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import walk
from ohmformer.study.cost import runs_of
from ohmformer.study.join_cost import without_choice
from ohmformer.study.read_study import locate_study
from ohmformer.study.record.basis import Chosen as ChosenNumbers
from ohmformer.study.record.basis import area_if, area_parts, basis, origin
from ohmformer.study.record.passes import beginning, ran_where, roofline, workload_words
from ohmformer.study.record.written import friendly
from ohmformer.study.results.record import Basis, HardwareNumber, HardwareRecord, PassRecord, Record
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostSettings, Settings, Study
from ohmformer.study.sweep import flatten

MOST_HARDWARE = 8
"""Number of accelerators whose values are kept."""


def study_record(
    command: str,
    name: str,
    *,
    measured: Study[Settings] | None = None,
    costs: Study[CostSettings] | None = None,
    chosen: Sequence[Chosen | None] = (),
    priced: Sequence[bool] = (),
) -> Record:
    """The record of a study.

    Args:
        command: the command line that gives the same results.
        name: file or name of the study.
        measured: its accuracy half; None if accuracy is not measured.
        costs: its cost half; None if nothing is priced.
        chosen: what calibration chose at each point; empty for nothing.
        priced: for each point, whether it has a price; empty if all have one.
    """
    half: Study[Settings] | Study[CostSettings] | None = measured or costs
    points = half.points if half else ()
    first = next((number for number in range(len(points)) if not priced or priced[number]), None)
    return Record(
        command=command,
        settings=tuple(_settings(name)),
        seed=measured.points[0].settings.seed if measured else None,
        hardware=_hardware([(point.set, point.settings.hardware) for point in points], name),
        priced=None if costs is None or first is None else _first_pass(costs, first, chosen[first] if chosen else None),
    )


def _settings(name: str) -> list[tuple[str, str]]:
    """Path and value of each setting, as the study file has them."""
    content = catalog.read(locate_study(name))
    sweeps, hardware = content.pop("sweep", []), content.pop("hardware", {})
    rows = [*flatten(content), *flatten({"base": hardware} if isinstance(hardware, str) else hardware, "hardware.")]
    for sweep in sweeps if isinstance(sweeps, list) else [sweeps]:
        rows += flatten(sweep, "sweep.")
    return [(path, value if isinstance(value, str) else json.dumps(value, default=str)) for path, value in rows]


def _hardware(points: Sequence[tuple[dict[str, object], Accelerator]], name: str) -> tuple[HardwareRecord, ...]:
    """The values of each accelerator that a study names, at its first point."""
    base = catalog.read(locate_study(name)).get("hardware", "")
    written = base if isinstance(base, str) else base.get("base", "")
    found: dict[str, Accelerator] = {}
    for values, hardware in points:
        found.setdefault(str(values.get("hardware.base", written)), hardware)
    return tuple(hardware_record(base, hardware) for base, hardware in list(found.items())[:MOST_HARDWARE])


def hardware_record(name: str, hardware: Accelerator) -> HardwareRecord:
    """All values of an accelerator that say something: those that are not left out."""
    rows = []
    for path, value, source in walk(hardware):
        if value is None or value == () or path == "title":
            continue
        kind = "" if source is None and isinstance(value, str | bool) else origin(source)
        where = "; ".join(part for part in (source.where, source.how) if part) if source else ""
        shown, key = friendly(hardware, path, value), source.source if source else ""
        rows.append(HardwareNumber(field=path, value=shown, kind=kind, source=key, where=where))
    return HardwareRecord(name=name, title=hardware.title, numbers=tuple(rows))


def _first_pass(costs: Study[CostSettings], number: int, chosen: Chosen | None) -> PassRecord | None:
    """The last pass of a point; None if it cannot be simulated by itself."""
    settings = _last_step(without_choice(costs.points[number].settings, chosen))
    try:
        run = runs_of(settings, chosen)[-1]
    except BadInput:
        return None
    machine = run.placement.machine
    return PassRecord(
        point=number,
        workload=workload_words(run.placement),
        ran=ran_where(run.placement),
        area_m2=area_parts(machine) if machine else {},
        basis=_basis(settings, chosen, lambda numbers: area_if(machine, numbers) if machine else 0.0),
        timeline=beginning(run.timeline),
        roofline=roofline(run),
    )


def _last_step(settings: CostSettings) -> CostSettings:
    """The settings of the last decoding step alone."""
    model = settings.model
    if model.steps == 1:
        return settings
    last = with_values(model, {"steps": 1, "context": model.context + model.steps - 1})
    return settings.model_copy(update={"model": last})


def _basis(settings: CostSettings, chosen: Chosen | None, area_on: Callable[[ChosenNumbers], float]) -> Basis | None:
    """What energy and area rest on; None if a changed price is refused."""

    def energy_on(hardware: Accelerator) -> float:
        return runs_of(settings.model_copy(update={"hardware": hardware}), chosen)[-1].energy

    try:
        return basis(settings.hardware, energy_on, area_on)
    except (BadInput, ValueError):
        return None
