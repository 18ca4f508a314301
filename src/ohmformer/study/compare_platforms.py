"""One study on several accelerators: cost on each, and accuracy where the study has a task."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.hardware.use import idle_notes
from ohmformer.mitigation.spec import KVClip
from ohmformer.study.cost import study_costs
from ohmformer.study.join_cost import no_accuracy, without_choice
from ohmformer.study.permission import check_python
from ohmformer.study.read_study import locate_study, read_document, whole_settings
from ohmformer.study.record.record import study_record
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.spec import PointResult, StudyCosts
from ohmformer.study.spec import CostSettings, Point, Study, Whole
from ohmformer.study.sweep import Document, parse_sets, put
from ohmformer.workload.shapes import PREFIX


@dataclass(frozen=True)
class _Platform:
    """A study on one accelerator.

    Attributes:
        name: the accelerator.
        settings: what the study says with it; without the study's clip where the accelerator cannot have it.
        unclipped: why the clip was dropped; empty where it was not.
    """

    name: str
    settings: Whole
    unclipped: str


def compared(
    name: str,
    platforms: Sequence[str],
    sets: Sequence[str] = (),
    *,
    out: Path | None = None,
    workers: int | None = None,
    python: Collection[str] | None = None,
    command: str = "",
) -> StudyCosts:
    """Cost, and accuracy where there is a task, of one study on each platform; sweeps are left out.

    Args:
        name: a study file or entry. Changes that it makes to its hardware are made to every platform.
        platforms: accelerators of the library, or paths. A platform that cannot have the study's clip is computed
            without it, and the notes say so.
        sets: changes 'PATH=VALUE'.
        out: folder that keeps results of the accuracy half; None for the study's default folder.
        workers: processes of the accuracy half; None for one for each core.
        python: modules whose functions the study may call as model or data; None for any.
        command: the command line that gives the same results, which the record states; empty for no record.

    Returns:
        One point for each platform, in the order of `platforms`.

    Raises:
        BadInput: no platforms, or one of them is named twice, has no accelerator, no price or no such field; or `out`
            or `workers` is given and the study has no accuracy.
    """
    names = _named(platforms)
    file = locate_study(name)
    document = read_document(file)
    swept = document.pop("sweep", None) is not None
    title = str(document.pop("name", file.stem))
    try:
        machines = _on_platforms(_changed(document, sets), names, file.parent)
        if python is not None:
            check_python([machine.settings for machine in machines], python, "")
        costs = [machine.settings.costs() for machine in machines]
        measured = _is_measurable(costs[0])
        if not measured:
            _check_unused(out, workers)
        study = _on_names(title, names, costs)
        priced = study_costs(study)
        if measured:
            priced = _with_accuracy(priced, machines, out or default_folder(title), workers)
        chosen = [point.accuracy.chosen if point.accuracy else None for point in priced.points]
        record = study_record(command, name, costs=study, chosen=chosen) if command else None
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    unclipped = [f"{machine.name}: no clip: {machine.unclipped}" for machine in machines if machine.unclipped]
    idle = _idle_notes(machines) if measured else []
    notes = (*_notes(swept, costs[0], measured), *unclipped, *idle, *priced.notes)
    return priced.model_copy(update={"notes": notes, "record": record})


def _named(platforms: Sequence[str]) -> list[str]:
    """Names of platforms without spaces around them.

    Raises:
        BadInput: there are none.
    """
    names = [platform.strip() for platform in platforms if platform.strip()]
    if not names:
        raise BadInput(f"--platforms: is missing or empty; name some of: {', '.join(catalog.entries('accelerator'))}")
    return names


def _changed(document: Document, sets: Sequence[str]) -> Document:
    """A study file with changes 'PATH=VALUE'."""
    for path, value in parse_sets(sets):
        if path in ("hardware", "hardware.base"):
            raise BadInput(f"--set {path}: has no effect, since --platforms names the accelerators; leave it out")
        document = put(document, path, value)
    return document


def _on_platforms(document: Document, names: Sequence[str], folder: Path) -> list[_Platform]:
    """The study on each accelerator; hardware files are looked up in `folder` first."""
    wholes = [_on_platform(document, name, folder) for name in names]
    reasons = [why_unclipped(whole.costs()) for whole in wholes]
    bare = put(document, "mitigation.clip", "none")
    _check_different(names, folder)
    return [
        _Platform(name, _on_platform(bare, name, folder) if reason else whole, reason)
        for name, whole, reason in zip(names, wholes, reasons, strict=True)
    ]


def _check_different(names: Sequence[str], folder: Path) -> None:
    """Refuse an accelerator that is named twice, also by two paths of one file.

    Raises:
        BadInput: one is.
    """
    first: dict[Path, str] = {}
    for name in names:
        file = catalog.locate("accelerator", name, beside=folder).resolve()
        if file in first:
            same = "" if first[file] == name else f" (as {first[file]} and {name})"
            raise BadInput(f"--platforms: names {name} twice{same}; leave one of them out")
        first[file] = name


def _check_unused(out: Path | None, workers: int | None) -> None:
    """Refuse options of the accuracy half for a study without one.

    Raises:
        BadInput: one of them is given.
    """
    no_effect = "has no effect, since the study has no accuracy"
    if out is not None:
        raise BadInput(f"--out {out}: {no_effect}, whose results it keeps; leave it out, or write costs with --json")
    if workers is not None:
        raise BadInput(f"--workers {workers}: {no_effect}, and costs are computed in one process; leave it out")


def _is_measurable(settings: CostSettings) -> bool:
    """True if there is a real model and a task."""
    return settings.task is not None and not settings.model.source.startswith(PREFIX)


def _on_platform(document: Document, platform: str, folder: Path) -> Whole:
    """The settings of a study with another accelerator.

    Raises:
        BadInput: there is no such accelerator, or it has not a field that the study sets; the message names it.
    """
    try:
        return whole_settings(put(document, "hardware.base", platform), folder)
    except BadInput as error:
        reason = str(error)
        raise BadInput(reason if reason.startswith("hardware.base") else f"{reason} (on {platform})") from error


def why_unclipped(settings: CostSettings) -> str:
    """Reason why the clip of a study cannot be used on an accelerator; empty if it can, or if there is no clip."""
    clip, attention = settings.mitigation.clip, settings.hardware.attention
    arrays = [engine.array for engine in (attention.key, attention.value) if isinstance(engine, CrossbarEngine)]
    if clip == "none":
        return ""
    if not arrays:
        return "its attention is not in memristive cells"
    if any(array.encoding == "offset" for array in arrays):
        return "its 'offset' arrays store zero in the middle of their range"
    if isinstance(clip, KVClip) and not all(clip.fits(array) for array in arrays):
        return f"with beta = {clip.beta:g} nothing would be left of the range of its cells"
    return ""


def _on_names(title: str, platforms: Sequence[str], settings: Sequence[CostSettings]) -> Study[CostSettings]:
    """The cost half, with a point for each platform."""
    pairs = zip(platforms, settings, strict=True)
    return Study(title, tuple(Point({"hardware.base": name}, "", point) for name, point in pairs))


def _notes(swept: bool, settings: CostSettings, measured: bool) -> list[str]:
    """Notes for readers of the comparison: on the sweep, and on missing accuracy."""
    notes = ["the study's sweep is left out; choose from it with --set PATH=VALUE"] if swept else []
    if settings.task is not None and not measured:
        notes.append(no_accuracy(settings))
    return notes


def _idle_notes(platforms: Sequence[_Platform]) -> list[str]:
    """What hours of use and ages of a timeline leave as it is on each platform."""
    return [
        f"{platform.name}: {note}"
        for platform in platforms
        for note in idle_notes(
            platform.settings.hardware,
            platform.settings.rules,
            platform.settings.simulation.hours,
            timeline=platform.settings.simulation.on_timeline,
        )
    ]


def _with_accuracy(priced: StudyCosts, platforms: Sequence[_Platform], out: Path, workers: int | None) -> StudyCosts:
    """Costs with the accuracy of each platform beside them, priced with what calibration chose there."""
    results = _measured(priced.study, platforms, out, workers)
    chosen = [result.accuracy.chosen for result in results]
    if any(chosen):
        costs = [
            without_choice(platform.settings.costs(), choice)
            for platform, choice in zip(platforms, chosen, strict=True)
        ]
        priced = study_costs(_on_names(priced.study, [platform.name for platform in platforms], costs), chosen)
    pairs = zip(priced.points, results, strict=True)
    points = tuple(point.model_copy(update={"accuracy": result.accuracy}) for point, result in pairs)
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    return priced.model_copy(update={"points": points, "notes": notes})


def _measured(title: str, platforms: Sequence[_Platform], out: Path, workers: int | None) -> list[PointResult]:
    """The result of the accuracy half on each platform, after the hours of use of the study."""
    from ohmformer.study.executors.worker import default_workers
    from ohmformer.study.run import run_study
    from ohmformer.study.use.hours import in_use

    sets = [{"hardware.base": platform.name} for platform in platforms]
    pairs = list(zip(sets, (platform.settings for platform in platforms), strict=True))
    study = Study(title, tuple(Point(at, "", settings.accuracy()) for at, settings in pairs))
    costs = Study(title, tuple(Point(at, "", settings.costs()) for at, settings in pairs))
    count = default_workers() if workers is None else workers
    return run_study(in_use(study, costs), out, workers=count)
