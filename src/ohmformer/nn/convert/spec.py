"""One serializable object with all that `convert` needs beside a model and a sample. Free of torch."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator

from ohmformer.array.spec import Level
from ohmformer.hardware.rules import OrderedRules, ordered_rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.quantities import Seed, WholeNumber
from ohmformer.schema import Spec, validate


class ConvertConfig(Spec):
    """How a model is put on crossbars: `convert(model, config, sample=...)`.

    `canonical()` gives plain JSON values, and `ConvertConfig.read` takes them back.

    Attributes:
        hardware: the accelerator.
        clip: ClipFormer's clip of K and V; None for none.
        weights: what is done to static weights before they are written.
        level: how faithfully crossbars are simulated.
        rules: (name pattern, rule) in order; the first match wins. A table of them is read in its order.
        seed: root of all noise.
        chip: number of the specimen of the hardware.
    """

    hardware: Accelerator
    clip: KVClip | None = None
    weights: WeightMitigation = WeightMitigation()
    level: Level = "array"
    rules: OrderedRules = ()
    seed: Seed = 0
    chip: WholeNumber = 0

    @field_validator("rules", mode="before")
    @classmethod
    def _rules(cls, value: Any, info: ValidationInfo) -> OrderedRules:
        return ordered_rules(value, info.context)

    @staticmethod
    def read(table: Any) -> ConvertConfig:
        """The configuration of plain values, such as `canonical()` gives or a JSON file holds.

        Raises:
            BadInput: a key is unknown or missing, or a value does not fit; one line with its path and the remedy.
        """
        return validate(ConvertConfig, table, where="", top="config", in_file=False)
