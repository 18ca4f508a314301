"""What all layers of one converted model share: how faithfully, which chip, which clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ohmformer.array.multiply import Level
from ohmformer.mapping.spec import KVClip
from ohmformer.streams import Stream

Mode = Literal["run", "bypass", "observe inputs", "observe converters"]


@dataclass(eq=False)
class State:
    """Shared by reference, so that one assignment reaches every layer.

    Attributes:
        level: fidelity of the simulation.
        seed: root of all streams.
        chip: which specimen of the hardware; another chip draws other noise and other faults.
        clip: conditioning of K and V before they are written.
        mode: `bypass` computes every captured product exactly (self-check); the observing modes calibrate ranges.
    """

    level: Level = "array"
    seed: int = 0
    chip: int = 0
    clip: KVClip | None = None
    mode: Mode = "run"
    visited: set[str] = field(default_factory=set)

    @property
    def stream(self) -> Stream:
        """The stream of the chip."""
        return Stream("seed", self.seed, "chip", self.chip)
