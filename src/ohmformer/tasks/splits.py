"""Split samples into calibration, training and test sets, by content and not by order.

Samples are sorted by the SHA-256 of their name (a text, or a path within its folder). The first samples calibrate the
hardware, the next ones train a probe if there is one, and the rest is scored. The split is independent of the order of
samples in a file, and samples with the same text are always in the same set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ohmformer.errors import BadInput
from ohmformer.tasks.spec import TaskChoice

CALIBRATION = 100
"""Default number of calibration samples, if a tenth of the samples is not fewer."""

TRAIN_SHARE = 0.6
"""Default share of the samples that do not calibrate on which a probe is fitted."""


@dataclass(frozen=True)
class SampleSets:
    """Three disjoint sets of samples, as positions in a sequence of samples."""

    calibration: list[int]
    train: list[int]
    test: list[int]


def in_hash_order(names: Sequence[str]) -> list[int]:
    """Return the positions of names, sorted by the SHA-256 of the names."""
    encoded = [name.encode(errors="surrogatepass") for name in names]  # file names need not be UTF-8
    return sorted(range(len(names)), key=lambda index: (hashlib.sha256(encoded[index]).digest(), index))


def split(choice: TaskChoice, names: Sequence[str]) -> SampleSets:
    """Split samples that no file has assigned. Test samples are in hash order, so the first n are a random subset.

    Args:
        choice: the task, with the sizes of the sets.
        names: what identifies each sample; samples with equal names stay together.

    Raises:
        BadInput: no sample would be left to score.
    """
    by_name: dict[str, list[int]] = {}
    for index in in_hash_order(names):
        by_name.setdefault(names[index], []).append(index)
    groups = list(by_name.values())
    calibrating = calibration_size(choice, len(groups))
    rest = len(groups) - calibrating
    training = min(choice.train or round(TRAIN_SHARE * rest), rest) if choice.probe else 0
    if rest - training < 1:
        uses = f"{calibrating} calibrate" + (f" and {training} train the probe" if training else "")
        raise BadInput(
            f"{choice.where}: of {len(groups)} different samples {uses}, so none is left to score; lower "
            "task.calibration or task.train, or add samples"
        )
    parts = groups[:calibrating], groups[calibrating : calibrating + training], groups[calibrating + training :]
    return SampleSets(*([index for group in part for index in group] for part in parts))


def calibration_size(choice: TaskChoice, samples: int) -> int:
    """Return how many of a number of samples calibrate."""
    return choice.calibration or min(CALIBRATION, max(1, samples // 10))
