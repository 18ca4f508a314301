"""Hours of use (`simulation.hours`): the cost half counts the writes of K/V cells for the accuracy half."""

from __future__ import annotations

from dataclasses import replace

from ohmformer.errors import BadInput
from ohmformer.hardware.ages import HOUR
from ohmformer.hardware.use import KV_ROLES, check_rules, used, wearing
from ohmformer.study.cost import passes_and_refreshes, runs_of
from ohmformer.study.spec import CostSettings, Point, Settings, Study


def in_use(study: Study[Settings], costs: Study[CostSettings]) -> Study[Settings]:
    """The same points, each with its hardware after the hours of use of its simulation.

    Args:
        study: the accuracy half.
        costs: the cost half of the same study.

    Raises:
        BadInput: the writes of cells that wear cannot be counted, or an array is worn out; one line with the file.
    """
    if not any(point.settings.simulation.hours for point in study.points):
        return study
    points = []
    for point, priced in zip(study.points, costs.points, strict=True):
        try:
            points.append(_used_point(point, priced.settings))
        except BadInput as error:
            values = ", ".join(f"{path} = {value}" for path, value in point.set.items())
            at = f" (at {values})" if values and len(study.points) > 1 else ""
            raise BadInput(f"{study.where}: {error}{at}" if study.where else f"{error}{at}") from error
    return replace(study, points=tuple(points))


def _used_point(point: Point[Settings], costs: CostSettings) -> Point[Settings]:
    settings = point.settings
    hours = settings.simulation.hours
    if not hours:
        return point
    check_rules(settings.rules, hours)
    writes = writes_after(hours, costs) if wearing(settings.hardware) else {}
    hardware = used(settings.hardware, hours, writes)
    return replace(point, settings=settings.model_copy(update={"hardware": hardware}))


def writes_after(hours: float, costs: CostSettings) -> dict[str, float]:
    """Writes that a cell of K or V has seen after hours of use, repetitions of verified writes included.

    It is the most written cell, or the mean cell with wear leveling; spare arrays take turns with the others. The rate
    is that of `[cost]`, or one pass right after another. Lifetimes are computed from the same numbers.

    Args:
        hours: time of use [h].
        costs: settings of the cost half.

    Returns:
        "attention.key" or "attention.value" -> writes; of several kinds of arrays of a role the most written one, and 0
        for a role without arrays. A role is left out if the endurance or the pulses of one of its cells are not known.

    Raises:
        BadInput: the point has no price.
    """
    runs, options = runs_of(costs), costs.cost
    rate, again = passes_and_refreshes(options, runs)
    passes = hours * HOUR * rate
    placement = runs[-1].placement
    found = {role: 0.0 for role in KV_ROLES if role not in placement.arrays}
    for wear in placement.wear:
        cell = wear.engine.array.cell
        per_pass = wear.with_refreshes(again).writes(leveling=options.leveling)
        repeated = wear.pulses / (cell.write_pulses or 1)
        writes = passes * per_pass * repeated / (1 + options.spare)
        found[wear.role] = max(found.get(wear.role, 0.0), writes)
    return found
