"""Files that say alone which model and data are loaded, and those that do not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ohmformer.models.spec import ModelChoice
from ohmformer.study.store.source_files import files_digest
from ohmformer.tasks.spec import TaskChoice

MODEL, TASK = ModelChoice(source="hf:model"), TaskChoice(source="csv:data.csv", labels="labels.txt")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    configuration = {"model_type": "bert", "_name_or_path": "somewhere/else", "vocab_file": None}
    (tmp_path / "model" / "config.json").write_text(json.dumps(configuration))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    (tmp_path / "labels.txt").write_text("b\n")
    return tmp_path


def add(**keys: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "model" / "config.json").write_text(json.dumps({"model_type": "bert", **keys}))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model" / "model.safetensors").write_bytes(b"Weights"),
        lambda folder: (folder / "model" / "model.safetensors").rename(folder / "model" / "other.safetensors"),
        lambda folder: (folder / "model" / "more.bin").write_bytes(b""),
        lambda folder: (folder / "model" / "1_Pooling" / "config.json").write_text("{ }"),
        lambda folder: (folder / "data.csv").write_text("text,label\na,c\n"),
        lambda folder: (folder / "labels.txt").write_text("c\n"),
    ],
    ids=["weights", "name", "new file", "folder below", "data", "labels"],
)
def test_every_file_counts(files: Path, change: Callable[[Path], object]) -> None:
    before = files_digest(MODEL, TASK)
    assert before == files_digest(MODEL, TASK) is not None
    change(files)
    assert files_digest(MODEL, TASK) not in (None, before)


@pytest.mark.parametrize(
    "change",
    [
        add(auto_map={"AutoModel": "code.Model"}),
        add(encoder={"backbone": "resnet50"}),
        add(parts=[{"tokenizer_file": "/elsewhere/tokenizer.json"}]),
        lambda folder: (folder / "model" / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}'),
        lambda folder: (folder / "model" / "w.safetensors.index.json").write_text(
            '{"weight_map": {"a": "../labels.txt"}}'
        ),
        add(pretrained_cfg={"file": "weights.bin"}),
        add(vocabulary=["a", "~/../.."]),
        lambda folder: (folder / "model" / "config.json").write_text("{"),
        lambda folder: (folder / "model" / "round").symlink_to(folder / "model"),
        lambda folder: (folder / "model" / "gone").symlink_to(folder / "nowhere"),
        lambda folder: os.mkfifo(folder / "model" / "pipe"),
        lambda folder: (folder / "labels.txt").unlink(),
    ],
    ids=[
        "code",
        "backbone",
        "tokenizer",
        "adapter",
        "shard",
        "timm",
        "path",
        "damaged",
        "circle",
        "broken link",
        "pipe",
        "missing",
    ],
)
def test_files_do_not_tell_where_others_take_part(files: Path, change: Callable[[Path], object]) -> None:
    change(files)
    assert files_digest(MODEL, TASK) is None


@pytest.mark.parametrize(
    "source", ["hf:someone/model", "timm:vit_tiny_patch16_224", "python:own:model", "hf:", "hf:model/a.gguf"]
)
def test_names_of_a_hub_and_functions_are_not_files(source: str) -> None:
    assert files_digest(ModelChoice(source=source), TASK) is None
    assert files_digest(MODEL, TaskChoice(source="python:own:task")) is None


def test_installed_packages_count(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_digest(MODEL, None)
    (files / "site" / "transformers-99.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(files / "site")])
    assert files_digest(MODEL, None) not in (None, before)


def test_bundled_data_need_no_files(files: Path) -> None:
    assert files_digest(MODEL, TaskChoice(source="bundled:fashion-mnist")) == files_digest(MODEL, None) is not None
