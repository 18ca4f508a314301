"""The page on tasks names all that there is, and the studies of real models are valid."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ohmformer.models.sources import FORMS
from ohmformer.models.spec import ModelChoice
from ohmformer.study.read_study import read_study
from ohmformer.tasks.load import OPTIONS
from ohmformer.tasks.metric_kinds import METRICS
from ohmformer.tasks.spec import TaskChoice

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
REAL = ROOT / "reproductions" / "real_models"
STUDIES = sorted((REAL / "studies").glob("*.toml"))


def test_the_page_names_every_field_source_and_metric() -> None:
    fields = {*ModelChoice.model_fields, *TaskChoice.model_fields} - {"provenance"}
    assert not [name for name in fields if name not in PAGE]
    assert not [name for name in METRICS if f"`{name}`" not in PAGE]
    prefixes = [form.split(":")[0] for forms in FORMS.values() for form in forms]
    assert not [prefix for prefix in prefixes if f"`{prefix}:" not in PAGE]
    assert {name for names in OPTIONS.values() for name in names} <= fields


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_studies_of_real_models_are_valid_and_described(file: Path) -> None:
    assert read_study(str(file)).points
    assert f"`{file.stem}`" in (REAL / "README.md").read_text(encoding="utf-8")


def test_packages_have_a_checksum_and_a_license() -> None:
    for package in tomllib.loads((REAL / "packages.toml").read_text(encoding="utf-8"))["package"]:
        assert len(package["sha256"]) == 64
        assert package["license"]
