"""`of.require`: how good must cells be, so that the metric of a study falls by no more than a given loss?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, check_type, given, one_line
from ohmformer.quantities import whole_number
from ohmformer.study.executors.spec import Workers, whole_count
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.read_study import accuracy_half, make_whole, read_both
from ohmformer.study.requirements.arrays import Arrays
from ohmformer.study.requirements.catalog import chosen_kinds, chosen_quantities, quantity
from ohmformer.study.requirements.conditions import as_run
from ohmformer.study.requirements.evaluations import Asked, Evaluations
from ohmformer.study.requirements.frontier import map_pair
from ohmformer.study.requirements.loss import check_loss_text, read_loss
from ohmformer.study.requirements.quantity import Quantity
from ohmformer.study.requirements.search import QuantitySearch
from ohmformer.study.requirements.software import checked_bound, software_accuracy
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.key import digest, versions
from ohmformer.study.results.requirements import Requirements
from ohmformer.study.run import Evaluate, study_keys
from ohmformer.study.spec import Point, Settings, Study, Whole
from ohmformer.tasks.metric_kinds import METRICS

STEP = 0.05
"""Ratio of neighboring values, less 1, if the user gives no other: a limit is known to 5 %."""

GRID = 7
"""Values of the first quantity of a map, if the user gives no other number."""

SMALLEST_STEP, LARGEST_STEP = 0.001, 1.0
MOST_VALUES = 100


@dataclass(frozen=True)
class Request:
    """What a user wants to know of a study, checked as far as that needs no model.

    Attributes:
        study: the study, with one point, for both halves.
        loss: the accepted loss as text.
        quantities: what is searched one by one.
        pair: what is mapped; None for no map.
        on: choice of arrays.
        kinds: name of a quantity -> kind for cells.
        step: ratio of neighboring values, less 1.
        grid: values of the first quantity of a map.
        explicit: True if the user named the quantities, so that one without answer is an error.
    """

    study: Study[Whole]
    loss: str
    quantities: tuple[Quantity, ...]
    pair: tuple[Quantity, Quantity] | None
    on: str
    kinds: Mapping[str, str]
    step: float
    grid: int
    explicit: bool

    @property
    def whole(self) -> Whole:
        """All settings of the only point."""
        return self.study.points[0].settings

    @property
    def settings(self) -> Settings:
        """The settings of the accuracy half as the file states them, before any hours of use."""
        return self.whole.accuracy()

    def search(self, wanted: Quantity, bound: Any) -> QuantitySearch:
        """The search of a quantity.

        Raises:
            BadInput: no limit can be searched.
        """
        return QuantitySearch(wanted, self.whole, self.on, self.kinds.get(wanted.name), bound, self.step)


def require(
    study: str | Path | Mapping[str, Any],
    *,
    loss: str,
    quantities: Sequence[str] | None = None,
    map: tuple[str, str] | None = None,
    on: str = "all",
    kinds: Mapping[str, str] | None = None,
    step: float = STEP,
    grid: int = GRID,
    sets: Sequence[str] = (),
    out: str | Path | None = None,
    workers: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Requirements:
    """Search the limits of cells within which the metric of a study falls by no more than a given loss.

    Each quantity is bisected by itself, all else as in the study: same chips, samples and random numbers at all values.
    The loss is that against the software model. A value holds if the far end of the 95 % interval of the loss is within
    the bound. Every evaluated point is stored, so a call that was stopped goes on where it was.

    Args:
        study: name or file of a study with one point, or its content as a mapping.
        loss: accepted loss: "1 %" or "1 point" is one percentage point of an accuracy, and 1 % of the software model's
            value of any other metric.
        quantities: names of quantities (`write_noise`, `read_noise`, `drift`, `verify_tolerance`, `retention`,
            `endurance`, `levels`, `output_noise`, `input_noise`); None for all that the study has or can have, or for
            none if there is a map.
        map: two names; the limit of the second quantity is searched at several values of the first one.
        on: whose arrays change: `all`, `projection`, `attention`, `attention.key` or `attention.value`.
        kinds: name of a quantity -> kind of noise or drift that cells get in place of theirs. Cells without noise get
            `uniform`, those without drift `power_law`.
        step: relative distance of neighboring values, so that of the limit from the true one.
        grid: number of values of the first quantity of a map.
        sets: changes 'PATH=VALUE' of the study.
        out: folder of the stored points; None for `ohmformer-runs/NAME`.
        workers: number of processes.
        fresh: True to evaluate points anew that are stored.
        progress: True to show losses as they are measured.

    Returns:
        Limits with intervals, parameters of cells at the limits, and all evaluated points.

    Raises:
        BadInput: an argument or the study cannot be used, or a point fails.
        Stopped: Ctrl-C was pressed.
    """
    request = checked_request(
        study, loss, quantities=quantities, pair=map, on=on, kinds=kinds, step=step, grid=grid, sets=sets
    )
    check_type("require", "progress", progress, bool, "True or False")
    check_type("require", "fresh", fresh, bool, "True or False")
    count = whole_count(workers)
    check_type("require", "out", out, (str, Path, type(None)), "the path of a folder")
    folder = default_folder(request.study.name) if out is None else Path(out)
    return answered(request, folder, workers=count, fresh=fresh, progress=progress)


def checked_request(
    study: Any, loss: Any, *, quantities: Any, pair: Any, on: Any, kinds: Any, step: Any, grid: Any, sets: Any
) -> Request:
    """The arguments of `require`, checked before a model is loaded.

    Raises:
        BadInput: one of them cannot be used.
    """
    check_type("require", "study", study, (str, Path, Mapping), "the name or file of a study, or its content")
    check_type("require", "on", on, str, "the role of arrays, such as 'attention'")
    for change in sets if isinstance(sets, (list, tuple)) else (None,):
        check_type("require", "sets", sets if change is None else change, str, "changes such as ['trials.chips=3']")
    if isinstance(study, Mapping):
        read = make_whole(dict(study), list(sets))
    else:
        _, read = read_both(str(study), list(sets))
    if len(read.points) != 1:
        paths = ", ".join(dict.fromkeys(path for point in read.points for path in point.set))
        raise BadInput(
            f"{read.where}: has {len(read.points)} points, but limits belong to one; remove the sweep, or give one "
            f"value for each swept path with --set PATH=VALUE ({paths})"
        )
    settings = accuracy_half(read).points[0].settings
    if settings.trials.ci_halfwidth is not None:
        raise BadInput(
            f"{read.where}: trials.ci_halfwidth = {settings.trials.ci_halfwidth:g}: limits are searched with a fixed "
            "number of chips; leave it out, and set trials.chips"
        )
    if settings.trials.chips < 2:
        raise BadInput(f"{read.where}: trials.chips = 1: one chip says nothing of others; set it to 2 or more")
    if settings.task.metric is not None:
        read_loss(loss, METRICS[settings.task.metric])
    else:
        check_loss_text(loss)
    ratio = _number("step", step, SMALLEST_STEP, LARGEST_STEP)
    mapped = _pair(pair)
    values = whole_number(grid)
    if not 2 <= values <= MOST_VALUES:
        raise BadInput(f"grid = {one_line(grid)}: must be a whole number from 2 to {MOST_VALUES}")
    Arrays.of(settings, on)
    chosen = () if mapped and quantities is None else chosen_quantities(quantities)
    named = chosen_kinds(kinds)
    for name in named:
        if name not in {each.name for each in (*chosen, *(mapped or ()))}:
            raise BadInput(f"kinds: {name} is not searched; leave its kind out, or add it to the quantities")
    return Request(read, loss, chosen, mapped, on, named, ratio, values, quantities is not None)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadInput(f"{name} = {one_line(value)}: must be a number from {low:g} to {high:g}")
    return float(value)


def _pair(names: Any) -> tuple[Quantity, Quantity] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != 2:
        raise BadInput(f"map is {given(names)}; give two names, such as ('write_noise', 'read_noise')")
    first, second = map(quantity, names)
    if first is second:
        raise BadInput(f"map: {first.name} is named twice; give two different quantities")
    return first, second


def answered(
    request: Request,
    folder: Path,
    *,
    workers: int | Workers = 1,
    fresh: bool = False,
    progress: bool = True,
    evaluate: Evaluate = evaluate_with_cost_half,
) -> Requirements:
    """The answer to a request.

    Args:
        request: the request.
        folder: of the stored points.
        workers: number of processes, or workers of `study.executors`.
        fresh: True to evaluate points anew that are stored.
        progress: True to show losses as they are measured.
        evaluate: function from settings to result.

    Raises:
        BadInput: the model, the data or a point cannot be used.
        Stopped: Ctrl-C was pressed.
    """
    settings, study = request.settings, _as_run(request.study)
    key = digest([study_keys(study), _options(request)])
    software = software_accuracy(settings)
    bound = checked_bound(request.loss, settings, software)
    searches, left_out = _searches(request, bound)
    pair = [request.search(each, bound) for each in request.pair] if request.pair else []
    evaluations = Evaluations(study.name, study.where, software, bound, folder, workers, fresh, progress, evaluate)
    today = evaluations.of(Asked({"the study": "as it is"}, request.whole))
    found = evaluations.run({name: search.run() for name, search in searches.items()})
    return Requirements(
        schema=1,
        study=study.name,
        key=key,
        versions=versions(study),
        loss=bound.most,
        loss_unit=bound.unit,
        metric=software.metric,
        level=software.level,
        kernels=software.kernels,
        software=software.mean,
        chips=settings.trials.chips,
        samples=software.samples,
        step=request.step,
        today=today,
        requirements=tuple(found.values()),
        frontier=map_pair(pair[0], pair[1], request.grid, evaluations) if pair else None,
        left_out=left_out,
    )


def _as_run(study: Study[Whole]) -> Study[Settings]:
    """The study as `ohmformer run` evaluates it.

    Raises:
        BadInput: its only point is refused.
    """
    (point,) = study.points
    try:
        return Study(study.name, (Point(point.set, point.label, as_run(point.settings)),), study.where)
    except BadInput as error:
        raise BadInput(f"{study.where}: {error}") from error


def _searches(request: Request, bound: Any) -> tuple[dict[str, QuantitySearch], dict[str, str]]:
    """The searches of the quantities, and why others are left out.

    Raises:
        BadInput: a quantity that the user named, or chose a kind for, cannot be searched, or none can.
    """
    searches: dict[str, QuantitySearch] = {}
    left_out: dict[str, str] = {}
    for each in request.quantities:
        try:
            searches[each.name] = request.search(each, bound)
        except BadInput as error:
            if request.explicit or each.name in request.kinds:
                raise
            left_out[each.name] = str(error)
    if not searches and not request.pair:
        raise BadInput(f"{request.study.where}: no quantity can be searched; {next(iter(left_out.values()))}")
    return searches, left_out


def _options(request: Request) -> dict[str, Any]:
    """All options that decide the answer, as plain values."""
    return {
        "loss": request.loss,
        "quantities": [each.name for each in request.quantities],
        "map": [each.name for each in request.pair or ()],
        "on": request.on,
        "kinds": dict(request.kinds),
        "step": request.step,
        "grid": request.grid if request.pair else None,
    }
