"""The configuration of a conversion as one serializable object. Free of torch."""

from __future__ import annotations

from typing import Any

from ohmformer.array.spec import Level
from ohmformer.hardware.rules import RulesField
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.quantities import Seed, WholeNumber
from ohmformer.schema import Spec, validate
from ohmformer.streams.backends import Kernels


class ConvertConfig(Spec):
    """The configuration of a conversion: `convert(model, config, sample=...)`.

    `canonical()` returns it as plain JSON values, and `ConvertConfig.read` reads these.

    Attributes:
        hardware: the accelerator.
        clip: ClipFormer's clip of K and V; None for no clip.
        weights: mitigation of static weights.
        level: how closely arrays are simulated.
        kernels: what computes on the CPU: operations of PyTorch, or loops that numba compiles.
        rules: (name pattern, rule) in order of precedence; the first match wins. A table is read in its order.
        seed: root of all noise.
        chip: number of the specimen of the hardware.
        half_cells: keep what cells hold of weights in half precision (float16).
    """

    hardware: Accelerator
    clip: KVClip | None = None
    weights: WeightMitigation = WeightMitigation()
    level: Level = "array"
    kernels: Kernels = "torch"
    rules: RulesField = ()
    seed: Seed = 0
    chip: WholeNumber = 0
    half_cells: bool = False

    @staticmethod
    def read(table: Any) -> ConvertConfig:
        """Read a configuration from plain values, such as those of `canonical()` or of a JSON file.

        Raises:
            BadInput: a key is unknown or missing, or a value is out of range.
        """
        return validate(ConvertConfig, table, where="", top="config", in_file=False)
