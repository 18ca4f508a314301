"""One study on several accelerators: cost on each, and accuracy where the study has a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.study.cost import cost_document, cost_settings, locate_study
from ohmformer.study.join_cost import chosen_kv, no_accuracy, with_chosen
from ohmformer.study.read_study import settings as read_settings
from ohmformer.study.results import slug
from ohmformer.study.spec import CostSettings, Point, Settings, Study
from ohmformer.study.sweep import Document, parse_set, put
from ohmformer.workload.shapes import PREFIX


def compared(
    name: str,
    platforms: Sequence[str],
    sets: Sequence[str] = (),
    *,
    out: Path | None = None,
    workers: int | None = None,
) -> Document:
    """Cost, and accuracy where there is a task, of one study on each platform; sweeps are left out.

    Args:
        name: a study file or entry. Changes that it makes to its hardware are made to every platform.
        platforms: accelerators of the library, or paths. One that cannot have the study's clip is computed without it,
            and the notes say so.
        sets: changes 'PATH=VALUE'.
        out: folder that keeps results of the accuracy half.
        workers: processes of the accuracy half; None for one for each core.

    Raises:
        BadInput: no platforms, or something that one of them does not have.
    """
    chosen = [platform.strip() for platform in platforms if platform.strip()]
    if not chosen:
        raise BadInput(f"--platforms: is missing or empty; name some of: {', '.join(catalog.entries('accelerator'))}")
    file = locate_study(name)
    document = dict(catalog.read(file))
    swept = document.pop("sweep", None) is not None
    title = str(document.pop("name", file.stem))
    try:
        for path, value in map(parse_set, sets):
            document = put(document, path, value)
        variants = [put(document, "hardware.base", platform) for platform in chosen]
        settings = [cost_settings(variant, file.parent) for variant in variants]
        reasons = [why_unclipped(own) for own in settings]
        for index in (index for index, reason in enumerate(reasons) if reason):
            variants[index] = put(variants[index], "mitigation.clip", "none")
            settings[index] = cost_settings(variants[index], file.parent)
        found = _priced(title, chosen, settings)
        measured = settings[0].task is not None and not settings[0].model.source.startswith(PREFIX)
        if measured:
            study = _study(title, chosen, variants, file.parent)
            found = _with_accuracy(found, study, settings, out or Path("ohmformer-runs") / slug(title), workers)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    unclipped = [f"{name}: no clip: {reason}" for name, reason in zip(chosen, reasons, strict=True) if reason]
    return {**found, "notes": [*_notes(swept, settings[0], measured), *unclipped, *found.get("notes", [])]}


def why_unclipped(settings: CostSettings) -> str:
    """Why an accelerator cannot have the clip that a study asks for; empty where it can, or none is asked for."""
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


def _priced(
    title: str,
    platforms: Sequence[str],
    settings: Sequence[CostSettings],
    chosen: Sequence[Mapping[str, Conditioning]] = (),
) -> Document:
    points = [Point({"hardware.base": name}, "", own) for name, own in zip(platforms, settings, strict=True)]
    return cost_document(Study(title, tuple(points)), chosen)


def _notes(swept: bool, settings: CostSettings, measured: bool) -> list[str]:
    found = ["the study's sweep is left out; choose from it with --set PATH=VALUE"] if swept else []
    if settings.task is not None and not measured:
        found.append(no_accuracy(settings))
    return found


def _study(title: str, platforms: Sequence[str], variants: Sequence[Document], folder: Path) -> Study[Settings]:
    """A point for each platform, so that they are computed at once."""
    points = []
    for platform, variant in zip(platforms, variants, strict=True):
        points.append(Point({"hardware.base": platform}, "", read_settings(variant, folder)))
    return Study(title, tuple(points))


def _with_accuracy(
    found: Document, study: Study[Settings], settings: Sequence[CostSettings], out: Path, workers: int | None
) -> Document:
    """What the accuracy half says of each platform, beside its cost; that of what was chosen there, if anything."""
    from ohmformer.study.executors import default_workers
    from ohmformer.study.results import document as results_document
    from ohmformer.study.run import run_study, study_keys

    results = run_study(study, out, workers=default_workers() if workers is None else workers)
    answers = results_document(study, study_keys(study), results)["points"]
    chosen = [answer["accuracy"].get("chosen") for answer in answers]
    if any(chosen):
        own = [with_chosen(each, what) for each, what in zip(settings, chosen, strict=True)]
        platforms = [point.set["hardware.base"] for point in study.points]
        found = _priced(study.name, platforms, own, [chosen_kv(what) for what in chosen])
    for point, answer in zip(found["points"], answers, strict=True):
        point["accuracy"] = {key: value for key, value in answer["accuracy"].items() if key != "hits"}
    notes = dict.fromkeys(note for answer in answers for note in answer.get("notes", []))
    return {**found, "notes": list(notes)}
