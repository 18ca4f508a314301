"""Completion in bash, without a terminal, and schemas for editors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def ohmformer(*arguments: str, folder: Path, **environment: str) -> str:
    command = Path(sys.executable).with_name("ohmformer")
    done = subprocess.run(
        [command, *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def completed(line: str, folder: Path) -> list[str]:
    words = str(len(line.split(" ")) - 1)
    asked = {"_OHMFORMER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": words}
    return ohmformer(folder=folder, **asked).split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ohmformer ci", ["cite"]),
        ("ohmformer cost bert_b", ["bert_base"]),
        ("ohmformer show clipformer_tcad_2024_adc", ["clipformer_tcad_2024_adc6", "clipformer_tcad_2024_adc8"]),
        ("ohmformer run my_st", ["my_study.toml"]),
        ("ohmformer search my_study.toml --cluster ", ["local", "ray"]),
    ],
)
@pytest.mark.slow
def test_bash_completes_verbs_entries_and_study_files(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_study.toml").touch()
    (tmp_path / "my_study.json").touch()
    assert completed(line, tmp_path) == offered


@pytest.mark.slow
def test_a_folder_of_schemas_checks_the_examples(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    said = ohmformer("schema", "--write", "schemas", folder=tmp_path)
    assert "#:schema schemas/study.schema.json" in said
    schema = json.loads((tmp_path / "schemas" / "study.schema.json").read_text())
    study = tomllib.loads((EXAMPLES / "03_adc_bits.toml").read_text())
    jsonschema.validate(study, schema)
    study["trials"] = {"chips": "many"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(study, schema)
