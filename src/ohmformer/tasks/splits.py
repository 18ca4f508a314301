"""Which samples are scored, which calibrate the hardware and which train a probe: decided by content, never by order.

Samples are put in the order of the SHA-256 of what identifies them (a text, or a path within its folder). The first
ones calibrate, the next ones train if a probe is wanted, the rest is scored. So a split does not depend on the order of
a file, and two samples of the same text never lie on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ohmformer.errors import BadInput
from ohmformer.tasks.spec import TaskChoice

CALIBRATION = 100
"""Calibration samples, unless a task says otherwise; a tenth where there are few."""

TRAIN_SHARE = 0.6
"""Share of what is left after calibration that a probe is fitted on, unless a task says otherwise."""


@dataclass(frozen=True)
class Split:
    """Places in a sequence of samples; no place is in two of them."""

    calibration: list[int]
    train: list[int]
    test: list[int]


def in_hash_order(names: Sequence[str]) -> list[int]:
    """Places, ordered by the SHA-256 of the names there."""
    return sorted(range(len(names)), key=lambda place: (hashlib.sha256(names[place].encode()).digest(), place))


def split(choice: TaskChoice, names: Sequence[str]) -> Split:
    """Who does what, of samples that no file has assigned. Test samples are in hash order, so any first part is mixed.

    Raises:
        BadInput: nothing would be left to score.
    """
    groups: dict[str, list[int]] = {}
    for place in in_hash_order(names):
        groups.setdefault(names[place], []).append(place)
    same = list(groups.values())
    calibrating = calibration_size(choice, len(same))
    rest = len(same) - calibrating
    training = min(choice.train or round(TRAIN_SHARE * rest), rest) if choice.probe else 0
    if rest - training < 1:
        wanted = f"{calibrating} calibrate" + (f" and {training} train the probe" if training else "")
        raise BadInput(
            f"{choice.where}: of {len(same)} different samples {wanted}, so none is left to score; lower "
            "task.calibration or task.train, or give more"
        )
    parts = same[:calibrating], same[calibrating : calibrating + training], same[calibrating + training :]
    return Split(*([place for group in part for place in group] for part in parts))


def calibration_size(choice: TaskChoice, samples: int) -> int:
    """How many of so many samples calibrate."""
    return choice.calibration or min(CALIBRATION, max(1, samples // 10))
