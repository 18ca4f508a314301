"""What a study is: settings that decide an answer, and the points that its sweep makes of them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from ohmformer.errors import BadInput, fault_of
from ohmformer.hardware.rules import OrderedRules, ordered_rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mapping.spec import KVClip
from ohmformer.schema import Spec
from ohmformer.tasks.spec import ModelChoice, Positive, TaskChoice


class Mitigation(Spec):
    """What is done against noise: `clip` is ClipFormer's, fixed or chosen on calibration data for each point."""

    clip: Literal["none", "calibrated"] | KVClip = "none"

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return _fixed(value)
        if not isinstance(value, KVClip) and value not in ("none", "calibrated"):
            raise ValueError("is no clip; write 'none', 'calibrated' or { alpha = 2.0, beta = 0.25 }")
        return value


def _fixed(table: dict[str, Any]) -> KVClip:
    try:
        return KVClip.model_validate(table)
    except ValidationError as error:
        raise fault_of(error, KVClip, table) from None


class Simulation(Spec):
    """How faithfully (see the levels in the documentation), and how many samples at a time."""

    level: Literal["cell", "array", "noise"] = "array"
    batch: Positive = 100


class Trials(Spec):
    """How many specimens of the hardware are tried."""

    chips: Positive = 10


class Settings(Spec):
    """Everything that a user decides about one answer.

    `rules` says what is different for modules that a name pattern matches; the first match wins.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelChoice
    task: TaskChoice
    hardware: Accelerator
    rules: OrderedRules = ()
    mitigation: Mitigation = Mitigation()
    simulation: Simulation = Simulation()
    trials: Trials = Trials()

    @field_validator("rules", mode="before")
    @classmethod
    def _rules(cls, value: Any, info: ValidationInfo) -> OrderedRules:
        return ordered_rules(value, info.context)

    @model_validator(mode="after")
    def _clip_fits(self) -> Settings:
        clip = self.mitigation.clip
        for engine in (self.hardware.attention.key, self.hardware.attention.value):
            if isinstance(clip, KVClip) and isinstance(engine, CrossbarEngine):
                try:
                    clip.thresholds(engine.array)
                except BadInput as error:
                    raise BadInput(f"mitigation.{error}") from None
        return self


@dataclass(frozen=True)
class Point:
    """One answer that is asked for: the swept values as written, the label of their sweep, and all settings."""

    set: dict[str, Any]
    label: str
    settings: Settings


@dataclass(frozen=True)
class Study:
    """A named list of points; `where` names its file in messages."""

    name: str
    points: tuple[Point, ...]
    where: str = ""
