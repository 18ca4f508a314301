"""Models and data of a study that is shown again: those outside the package must be those of before.

Where they come from folders that name nothing elsewhere, their files and the installed packages tell. Others are
loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ohmformer.models.spec import ModelChoice
from ohmformer.study.results.key import versions_of
from ohmformer.study.store.source_files import files_digest
from ohmformer.tasks.spec import TaskChoice
from ohmformer.workload.shapes import PREFIX

if TYPE_CHECKING:
    from ohmformer.study.spec import CostSettings, Settings, Study

PACKAGED = ("bundled:", PREFIX)
"""Beginnings of the sources of models, data and tables of dimensions that are part of the package."""

PYTHON = "python:"
"""Beginning of the sources that run code of the user, which is asked for each time."""

Noted = list[dict[str, Any]]
"""Choices of model and task as JSON, each with a digest of their files and their identity; null where there is none."""


Sources = dict[tuple[ModelChoice, TaskChoice | None], str | None]
"""Choice of model and task outside the package -> digest of their files; None where files do not tell."""


def sources_of(study: Study[Settings] | Study[CostSettings]) -> Sources:
    """The models and data of a study that are not part of the package."""
    choices = {(point.settings.model, point.settings.task) for point in study.points}
    outside = [pair for pair in choices if not all(each.source.startswith(PACKAGED) for each in pair if each)]
    return {pair: files_digest(*pair) for pair in outside}


def noted_models(study: Study[Settings] | Study[CostSettings], before: Sources) -> Noted | None:
    """What tells later whether models and data outside the package are the same.

    Args:
        study: its points. Those of an accuracy half have been evaluated, so that models and data are loaded.
        before: `sources_of` the study before anything was loaded. Files that have changed since do not tell what was.

    Returns:
        A list, which is empty where all are part of the package; None if it cannot be told: code of the user must be
        allowed each time, and where files do not tell, costs alone load no data, and more models than a process keeps
        would be loaded twice.
    """
    from ohmformer.study.spec import CostSettings

    if not before:
        return []
    from ohmformer.study.loaded import KEPT

    if any(each.source.startswith(PYTHON) for pair in before for each in pair if each):
        return None
    now, alone = sources_of(study), any(isinstance(point.settings, CostSettings) for point in study.points)
    noted = [
        {
            **_as_json(model=model, task=task),
            "files": digest if now.get((model, task)) == digest else None,
            "identity": None if alone or len(before) > KEPT else _identity(model, task),
        }
        for (model, task), digest in before.items()
    ]
    return noted if all(each["files"] or each["identity"] for each in noted) else None


def same_models(noted: Noted, versions: Mapping[str, str]) -> bool:
    """True if models and data are those that were noted, by the same versions of their packages.

    Args:
        noted: see `noted_models`.
        versions: package -> version when they were noted.

    Raises:
        BadInput: one of them cannot be loaded.
    """
    if not noted:
        return True
    if versions != versions_of(versions):
        return False
    return all(map(_same, noted))


def _same(noted: dict[str, Any]) -> bool:
    """True if files say that model and data are those that were noted, or else what is loaded from them."""
    model = ModelChoice.model_validate(noted["model"])
    task = None if noted["task"] is None else TaskChoice.model_validate(noted["task"])
    if noted["files"] and noted["files"] == files_digest(model, task):
        return True
    return noted["identity"] is not None and noted["identity"] == _identity(model, task)


def _as_json(**choices: ModelChoice | TaskChoice | None) -> dict[str, Any]:
    return {name: choice and choice.model_dump(mode="json") for name, choice in choices.items()}


def _identity(model: ModelChoice, task: TaskChoice | None) -> dict[str, Any] | None:
    """Digests of model and data as they are loaded; None if there are no data."""
    if task is None:
        return None
    from ohmformer.models.user_code import USERS_CODE, guarded
    from ohmformer.study.loaded import identity_of

    with guarded(USERS_CODE):
        return asdict(identity_of(model, task))
