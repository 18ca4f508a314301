"""Labeled data by name; empty or wrong data is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.tasks.load import load_task, normalize
from ohmformer.tasks.task import Task


def make(**changes: Any) -> Task:
    parts: dict[str, Any] = {
        "inputs": torch.arange(12.0).reshape(6, 2),
        "labels": torch.arange(6),
        "calibration": torch.ones(3, 2),
        "calibration_labels": torch.zeros(3, dtype=torch.int64),
    }
    return Task("some data", **{**parts, **changes})


def test_the_shipped_data_set() -> None:
    task = load_task("bundled:fashion-mnist")
    assert task.inputs.shape[1:] == (1, 28, 28)
    assert len(task) >= 2000
    assert set(task.labels.tolist()) == set(range(10))
    assert task.inputs.min() == -1
    assert task.inputs.max() == 1
    seen = {image.numpy().tobytes() for image in task.inputs}
    assert not any(image.numpy().tobytes() in seen for image in task.calibration), (
        "calibration images are in the test set"
    )


def test_normalization_spans_minus_one_to_one() -> None:
    images = np.array([[[0, 255], [51, 204]]], dtype=np.uint8)
    assert torch.allclose(normalize(images), torch.tensor([[[[-1.0, 1.0], [-0.6, 0.6]]]]), atol=1e-6)


def test_a_limit_takes_the_first() -> None:
    task = make().first(2)
    assert task.inputs.tolist() == [[0, 1], [2, 3]]
    assert task.labels.tolist() == [0, 1]
    assert len(task.calibration) == 3
    assert len(make().first(None)) == 6


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (0, "must be a whole number, 1 or more"),
        (-3, "must be a whole number, 1 or more"),
        (7, "only 6 samples"),
        (2.5, "must be a whole number"),
        ("2", "must be a whole number"),
        (True, "must be a whole number"),
    ],
)
def test_a_limit_that_does_not_fit_is_refused(limit: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"task.limit = {limit!r}: .*{said}"):
        make().first(limit)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.ones(6), r"array \[6\]"),
        (np.ones((2, 5)), r"array \[2, 5\] of float64; give real numbers \[chips, 6\]"),
        (np.ones((0, 6)), r"array \[0, 6\]"),
        (np.full((2, 6), np.nan), "NaN"),
        (np.full((2, 6), 1j), "complex128"),
        ("scores", "a str, 'scores'"),
    ],
)
def test_scores_of_another_shape_or_without_values_are_not_summarized(scores: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make().summarize(scores)


def test_scores_may_be_lists_or_tensors() -> None:
    hits = [[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 1]]
    expected = make().summarize(np.array(hits, dtype=np.float64))
    assert make().summarize(hits) == make().summarize(torch.tensor(hits)) == expected  # type: ignore[arg-type]


def test_arrays_become_tensors() -> None:
    arrays = {"inputs": np.arange(12.0).reshape(6, 2), "labels": np.arange(6), "calibration": np.ones((3, 2))}
    task = make(**arrays)
    assert all(isinstance(getattr(task, name), torch.Tensor) for name in arrays)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": (x for x in [1])}, "the test set is a generator; give a tensor"),
        ({"calibration": None}, "the calibration set is None; give a tensor"),
        ({"inputs": torch.zeros(6, 2, device="meta")}, "the test set is on the meta device"),
        ({"labels": torch.zeros(6, device="meta")}, "the test set is on the meta device"),
    ],
)
def test_sets_without_rows_or_values_are_refused_by_what_they_are(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": torch.zeros(0, 2), "labels": torch.zeros(0)}, "test set is empty"),
        ({"calibration": torch.zeros(0, 2), "calibration_labels": torch.zeros(0)}, "calibration set is empty"),
        ({"labels": torch.zeros(5)}, "6 inputs but 5 labels"),
        ({"inputs": torch.full((6, 2), float("inf"))}, "NaN or infinity"),
    ],
)
def test_data_that_cannot_be_used_is_refused(changes: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(BadInput, match=f"some data: .*{said}"):
        make(**changes)


def test_the_digest_sees_every_part() -> None:
    changes: list[dict[str, torch.Tensor]] = [
        {},
        {"inputs": torch.arange(12.0).reshape(6, 2) + 1},
        {"inputs": torch.arange(12.0).reshape(6, 2, 1)},
        {"inputs": torch.arange(12).reshape(6, 2)},
        {"labels": torch.arange(6).flip(0)},
        {"calibration": torch.zeros(3, 2)},
        {"calibration_labels": torch.ones(3, dtype=torch.int64)},
    ]
    assert len({make(**change).digest for change in changes}) == len(changes)
    assert make().digest == make().digest
    assert make().first(6).digest == make().digest != make().first(5).digest


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bundled:nope", "known: bundled:fashion-mnist"),
        ("python:json:dumps", "fails"),
        ("python:builtins:dict", "dict"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(source: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_task(source)
    assert said in str(caught.value)
    assert "task.source" in str(caught.value)


def test_a_damaged_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    (folder / "broken_test.npz").write_bytes(b"not data")
    np.savez(folder / "half_test.npz", images=np.zeros((1, 2, 2), np.uint8), labels=np.zeros(1, np.uint8))
    for name in ("broken", "half"):
        with pytest.raises(BadInput, match="is not a bundled data set"):
            load_task(f"bundled:{name}")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 1, float("nan"), 1, 1, 1]), r"labels\[2\] = nan"),
        (torch.tensor([0, 0.5, 1, 1, 1, 1]), r"labels\[1\] = 0\.5"),
        (torch.tensor([0, -1, 1, 1, 1, 1]), r"labels\[1\] = -1"),
        (torch.tensor([0, float("inf"), 1, 1, 1, 1]), r"labels\[1\] = inf"),
        (torch.tensor([0, 1e30, 1, 1, 1, 1]), r"labels\[1\] = 1\.0"),
        (torch.zeros(6, 1), r"labels are a tensor \[6, 1\]"),
        (torch.zeros(6, dtype=torch.complex64), "labels are a tensor"),
        (torch.zeros(6).to_sparse(), "labels are a tensor"),
        ([0, 1, 1, 1, 1, 1], "labels of the test set are list"),
        (None, "labels of the test set are NoneType"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: torch.Tensor, said: str) -> None:
    with pytest.raises(BadInput, match=f"some data: {said}") as caught:
        make(labels=labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float32, torch.float64, torch.bfloat16, torch.bool),
        *(torch.float8_e4m3fn, torch.uint16, torch.uint32, torch.uint64),
    ],
)
def test_whole_labels_of_another_type_become_int64(dtype: torch.dtype) -> None:
    task = make(labels=torch.tensor([0, 1, 1, 0, 1, 0]).to(dtype))
    assert task.labels.dtype == torch.int64
    assert task.labels.tolist() == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "top3"}, "metric = 'top3'"),
        ({"metric": 3}, "metric = 3"),
        (
            {"metric": "pearson", "labels": torch.tensor([1.0, float("nan")]), "pairs": torch.tensor([[0, 1], [1, 2]])},
            "finite",
        ),
        ({"metric": "pearson", "labels": torch.zeros(2), "pairs": torch.tensor([[0, 1], [1, 9]])}, "samples 0 to 9"),
        ({"metric": "pearson", "labels": torch.zeros(2), "pairs": torch.zeros(2, 2)}, "pairs are a tensor"),
        ({"metric": "perplexity", "labels": torch.full((6, 2), -1)}, r"labels\[0, 0\] = -1"),
        ({"metric": "perplexity", "labels": torch.full((6, 2), -100)}, "window 0 has no scored token"),
        ({"train": (torch.zeros(4, 2), torch.zeros(3))}, "training set has 4 inputs but 3 labels"),
        ({"train": (torch.zeros(4, 2), torch.full((4,), 0.5))}, r"training labels\[0\] = 0\.5"),
        ({"train": 3}, "train is int"),
        ({"inputs": None}, "the test set is None; give a tensor"),
    ],
)
def test_tasks_that_cannot_be_scored_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_a_task_prints_its_sizes_and_not_its_data() -> None:
    task = load_task("bundled:fashion-mnist", 3)
    assert repr(task) == "Task(bundled:fashion-mnist: 3 test and 500 calibration samples, top1)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": torch.zeros(6, 2).to_sparse()}, "the test set is sparse or nested"),
        ({"inputs": {"x": torch.zeros(6, 2).to_sparse()}}, "the test set's x is sparse or nested"),
        ({"inputs": torch.full((6, 2), float("nan")).to(torch.float8_e4m3fn)}, "holds NaN"),
        ({"inputs": torch.full((6, 2), complex("nan"))}, "holds NaN"),
        ({"inputs": torch.tensor(1.0)}, "the test set is a Tensor without a first axis"),
        ({"inputs": ["a"] * 6}, "the test set is a list; give a tensor"),
        ({"inputs": np.zeros((6, 2), np.longdouble)}, "array of type .*; give float32 or float64"),
        ({"inputs": np.ma.masked_array(np.zeros((6, 2)), mask=[[1, 0]] * 6)}, "masked array"),
        ({"train": (torch.full((4, 2), float("nan")), torch.arange(4))}, "training set holds NaN"),
        ({"train": (torch.zeros(0, 2), torch.zeros(0))}, "training set is empty"),
        ({"metric": "pearson", "labels": torch.zeros(0), "pairs": torch.zeros(0, 2, dtype=torch.int64)}, "pairs are"),
        ({"metric": "pearson", "labels": torch.zeros(6), "pairs": torch.zeros(6, 2, dtype=torch.bool)}, "pairs are"),
        ({"metric": "pearson", "labels": torch.zeros(6), "pairs": [(0, 1)] * 6}, "pairs are list"),
        ({"labels": torch.tensor([0, 1, 1, 1, 1, 2**40])}, r"labels\[5\] = 1099511627776"),
        ({"reference": torch.zeros(6)}, r"reference are a tensor \[6\]"),
        ({"reading": {"pooling": "cls"}}, "reading is a dict"),
        ({"notes": "a remark"}, "notes are a str"),
    ],
)
def test_odd_tensors_and_types_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_a_name_is_text() -> None:
    with pytest.raises(BadInput, match="name is an int, 3"):
        Task(3, torch.zeros(6, 2), torch.arange(6), torch.zeros(3, 2), torch.zeros(3))  # type: ignore[arg-type]


def test_arrays_of_training_samples_and_pairs_become_tensors() -> None:
    task = make(train=(np.ones((4, 2)), np.arange(4)))
    assert task.train is not None
    assert isinstance(task.train[0], torch.Tensor)
    pairs = np.array([[0, 1]] * 6, dtype=np.uint16)
    assert make(metric="pearson", pairs=pairs).pairs.dtype == torch.int64


def test_a_field_with_an_array_of_text_is_named() -> None:
    """Labels of text were once said to be a `sample` that holds them."""
    x, labels = torch.zeros(2, 3), np.array(["cat", "dog"])
    with pytest.raises(BadInput, match=r"^t: field 'labels' holds an array of type <U3; give numbers$"):
        Task("t", x, labels, x, torch.zeros(2, dtype=torch.int64))
