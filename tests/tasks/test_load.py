"""Data sets of a library folder: what is not a bundled data set is refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ohmformer.errors import BadInput
from ohmformer.tasks.load import load_task

IMAGES: NDArray[np.uint8] = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
LABELS = np.arange(3)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    (tmp_path / "bundled").mkdir()
    return tmp_path / "bundled"


def write(
    folder: Path, images: object = IMAGES, labels: object = LABELS, change: Callable[[bytes], bytes] = bytes
) -> None:
    for part in ("test", "calibration"):
        file = folder / f"mine_{part}.npz"
        np.savez_compressed(file, images=np.asarray(images), labels=np.asarray(labels))
        file.write_bytes(change(file.read_bytes()))


def test_a_data_set_of_a_user(bundled: Path) -> None:
    write(bundled)
    task = load_task("bundled:mine")
    assert task.inputs.shape == (3, 1, 4, 4)
    assert task.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (IMAGES, ["a", "b", "c"], "labels are <U1"),
        (IMAGES, [0.5, 0, 1], "labels are float64"),
        (IMAGES, [[0], [1], [2]], r"labels are int64 \[3, 1\]"),
        (IMAGES, [-1, 0, 1], r"labels\[0\] = -1"),
        (IMAGES, [0, 1], "3 inputs but 2 labels"),
        (IMAGES, np.array([{}, 1, 2], dtype=object), "is not a bundled data set"),
        (np.zeros((3, 4, 4, 3), np.uint8), LABELS, r"images are uint8 \[3, 4, 4, 3\]"),
        (np.zeros((0, 4, 4), np.uint8), [], r"images are uint8 \[0, 4, 4\]"),
        (np.full((3, 4, 4), np.nan), LABELS, "images hold NaN"),
        (np.full((3, 4, 4), 300), LABELS, "outside 0 to 255"),
        (np.full((3, 4, 4), "a"), LABELS, "images are <U1"),
    ],
)
def test_arrays_that_are_no_gray_images_with_classes(bundled: Path, images: object, labels: object, said: str) -> None:
    write(bundled, images, labels)
    with pytest.raises(BadInput, match=said) as caught:
        load_task("bundled:mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: raw[:60] + b"\xff" * 9]
)
def test_damaged_files_are_one_line(bundled: Path, change: Callable[[bytes], bytes]) -> None:
    write(bundled, change=change)
    with pytest.raises(BadInput, match=r"mine_test\.npz: is not a bundled data set \(.*make the file again"):
        load_task("bundled:mine")


def test_flipped_bytes_end_in_one_line_or_in_nothing(bundled: Path) -> None:
    draw = random.Random(0)

    def flipped(raw: bytes) -> bytes:
        found = bytearray(raw)
        for _ in range(3):
            found[draw.randrange(len(found))] = draw.randrange(256)
        return bytes(found)

    refused = 0
    for _ in range(40):
        write(bundled, change=flipped)
        try:
            load_task("bundled:mine")
        except BadInput:
            refused += 1
    assert refused


def test_a_missing_calibration_set_is_one_line(bundled: Path) -> None:
    write(bundled)
    (bundled / "mine_calibration.npz").unlink()
    with pytest.raises(BadInput, match=r"mine_calibration\.npz: is not a bundled data set \(there is no such file\)"):
        load_task("bundled:mine")
