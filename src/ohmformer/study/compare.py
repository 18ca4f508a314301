"""One study on several accelerators: cost on each, and accuracy where the study has a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.study.cost import SECTIONS, CostPoint, CostStudy, cost_document, cost_settings, locate_study
from ohmformer.study.sweep import Document, parse_set, put


def compared(
    name: str, platforms: Sequence[str], sets: Sequence[str] = (), *, out: Path | None = None, workers: int = 1
) -> Document:
    """Cost, and accuracy where there is a task, of one study on each platform; sweeps are left out.

    Args:
        name: a study file or entry. Changes that it makes to its hardware are made to every platform.
        platforms: accelerators of the library, or paths.
        sets: changes 'PATH=VALUE'.
        out: folder that keeps results of the accuracy half.
        workers: processes of the accuracy half.

    Raises:
        BadInput: no platforms, or something that one of them does not have.
    """
    chosen = [platform.strip() for platform in platforms if platform.strip()]
    if not chosen:
        raise BadInput(f"--platforms: is empty; name some of: {', '.join(catalog.entries('accelerator'))}")
    file = locate_study(name)
    document = dict(catalog.read(file))
    swept = document.pop("sweep", None) is not None
    title = str(document.pop("name", file.stem))
    for path, value in map(parse_set, sets):
        document = put(document, path, value, SECTIONS)
    try:
        variants = [_on(document, platform) for platform in chosen]
        costs = tuple(
            CostPoint({"hardware.base": platform}, "", cost_settings(variant, file.parent))
            for platform, variant in zip(chosen, variants, strict=True)
        )
        found = cost_document(CostStudy(title, costs))
        if "task" in document:
            _add_accuracy(found, title, variants, out, workers)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    notes = ["the study's sweep is left out; choose from it with --set PATH=VALUE"] if swept else []
    return {**found, "notes": notes}


def _on(document: Document, platform: str) -> Document:
    return put(document, "hardware.base", platform, SECTIONS)


def _add_accuracy(found: Document, title: str, variants: list[Document], out: Path | None, workers: int) -> None:
    """What the accuracy half says of each variant, beside its cost."""
    from ohmformer.study.read import make_study
    from ohmformer.study.results import document as results_document
    from ohmformer.study.results import slug
    from ohmformer.study.run import run_study, study_keys

    for point, variant in zip(found["points"], variants, strict=True):
        study = make_study({"name": title, **variant})
        results = run_study(study, out or Path("ohmformer-runs") / slug(title), workers=workers)
        answered = results_document(study, study_keys(study), results)["points"][0]
        hits = ("hits",)
        point["accuracy"] = {key: value for key, value in answered["accuracy"].items() if key not in hits}
