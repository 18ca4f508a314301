"""Models and data of a study that is shown again: those outside the package are loaded, and must be those of before.

Their files alone would not tell: configurations name other files, and code of other packages decides what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ohmformer.models.spec import ModelChoice
from ohmformer.study.results.key import versions_of
from ohmformer.tasks.spec import TaskChoice
from ohmformer.workload.shapes import PREFIX

if TYPE_CHECKING:
    from ohmformer.study.spec import CostSettings, Settings, Study

PACKAGED = ("bundled:", PREFIX)
"""Beginnings of the sources of models, data and tables of dimensions that are part of the package."""

PYTHON = "python:"
"""Beginning of the sources that run code of the user, which is asked for each time."""

Noted = list[dict[str, Any]]
"""Choices of model and task as JSON, each with their identity."""


def noted_models(study: Study[Settings] | Study[CostSettings]) -> Noted | None:
    """What tells later whether models and data outside the package are the same.

    Args:
        study: its points. Those of an accuracy half have been evaluated, so that models and data are loaded.

    Returns:
        A list, which is empty where all are part of the package; None if it cannot be told: code of the user must be
        allowed each time, costs alone load no data, and more models than a process keeps would be loaded twice.
    """
    from ohmformer.study.spec import CostSettings

    choices = {(point.settings.model, point.settings.task) for point in study.points}
    outside = [pair for pair in choices if not all(each.source.startswith(PACKAGED) for each in pair if each)]
    if not outside:
        return []
    from ohmformer.study.loaded import KEPT

    users = any(each.source.startswith(PYTHON) for pair in outside for each in pair if each)
    if users or len(choices) > KEPT or any(isinstance(point.settings, CostSettings) for point in study.points):
        return None
    return [_noted(model, task) for model, task in outside if task is not None]


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
    choices = [(ModelChoice.model_validate(each["model"]), TaskChoice.model_validate(each["task"])) for each in noted]
    return all(_noted(*choice) == each for choice, each in zip(choices, noted, strict=True))


def _noted(model: ModelChoice, task: TaskChoice) -> dict[str, Any]:
    from ohmformer.models.user_code import USERS_CODE, guarded
    from ohmformer.study.loaded import identity_of

    with guarded(USERS_CODE):
        identity = identity_of(model, task)
    choices = {name: choice.model_dump(mode="json") for name, choice in (("model", model), ("task", task))}
    return {**choices, "identity": asdict(identity)}
