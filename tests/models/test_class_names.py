"""Classes of a configuration that are not numbered from 0, lack a name, or share one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.models.class_names import check_class_names, numbers_of_names
from ohmformer.models.load import load_model
from ohmformer.tasks.load import load_task
from tests.tasks import tiny

FILE = Path("config.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "id2label has 2 names but none for class 0; number them from 0"),
        ({"id2label": {"0": "a", "7": "b"}}, "none for class 1"),
        ({"id2label": {"0": "a", "00": "b"}}, "none for class 1"),
        ({"id2label": {"a": "0", "b": "1"}}, "none for class 0"),
        ({"id2label": {"0": "a", "-1": "b"}}, "none for class 1"),
        ({"id2label": {}}, "must be a table"),
        ({"id2label": ["a", "b"]}, "must be a table"),
        ({"id2label": "ab"}, "must be a table"),
        ({"id2label": {"0": None}}, "class 0 = None: must be a name"),
        ({"id2label": {"0": " "}}, "class 0 = ' ': must be a name"),
        ({"id2label": {"0": ["a"]}}, "must be a name"),
        ({"id2label": {"0": "a"}, "num_labels": 3}, "num_labels = 3: id2label has 1 names"),
        ({"num_labels": 0}, "num_labels = 0: must be a number of classes"),
        ({"num_labels": "3"}, "num_labels = '3': must be"),
        ({"num_labels": True}, "num_labels = True: must be"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "label2id: 'a' is class 1, but class 0"),
    ],
)
def test_classes_that_cannot_be_used_are_one_line(content: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=f"config.json: {said}|config.json: .*{said}"):
        check_class_names(FILE, content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"id2label": None, "num_labels": 3},
        {"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
        {"id2label": {"0": "crane", "1": "crane"}, "label2id": {"crane": 1}},
        {"id2label": {"1": 1, "0": 0}, "label2id": {"0": "0"}},
        {"id2label": {str(number): f"name {number}" for number in range(12)}, "num_labels": 12},
    ],
)
def test_classes_that_can_be_used_are_accepted(content: dict[str, Any]) -> None:
    check_class_names(FILE, content)


def test_a_name_of_two_classes_names_none() -> None:
    names = ("crane", "dog", "crane")
    assert numbers_of_names("task", ["dog", "cat"], names) == {"dog": 1}
    with pytest.raises(BadInput, match=r"task: the model has 2 classes called 'crane' \(0, 2\).*task\.labels"):
        numbers_of_names("task", ["dog", "crane"], names)


def renamed(folder: Path, *names: str) -> Path:
    file = folder / "config.json"
    table = {str(number): name for number, name in enumerate(names)}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id2label": table, "label2id": None}))
    return folder


def test_data_labeled_by_a_name_of_two_classes_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    texts = load_model(f"hf:{renamed(tiny.bert(tmp_path / 'b', 'BertForSequenceClassification'), 'pos', 'pos')}")
    with pytest.raises(BadInput, match=r"the model has 2 classes called 'pos' \(0, 1\)"):
        load_task(f"csv:{tiny.reviews(tmp_path / 't.csv')}", model=texts)
    images = load_model(f"hf:{renamed(tiny.deit(tmp_path / 'd'), 'dark', 'light', 'dark')}")
    tiny.photographs(tmp_path / "p")
    for file in (tmp_path / "p" / "noisy").iterdir():
        file.unlink()
    (tmp_path / "p" / "noisy").rmdir()
    with pytest.raises(BadInput, match=r"the model has 2 classes called 'dark' \(0, 2\)"):
        load_task(f"imagefolder:{tmp_path / 'p'}", model=images)
    labels = tmp_path / "labels.json"
    labels.write_text('{"dark": 2, "light": 1}')
    assert len(load_task(f"imagefolder:{tmp_path / 'p'}", model=images, labels=str(labels))) > 0
