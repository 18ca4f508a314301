"""What an accelerator is: engines, and the roles they play for a transformer's operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.chip import Chip
from ohmformer.quantities import (
    BytesPerSecond,
    Count,
    Factor,
    OpsPerSecond,
    PositiveShare,
    Seconds,
    SquareMetres,
    Watts,
)
from ohmformer.registry import Family, register
from ohmformer.schema import Spec


@dataclass(frozen=True)
class Work:
    """Products of one stage of a layer, over all samples.

    Attributes:
        macs: multiplications with addition.
        values_in: values of both operands that come from memories.
        values_out: values of results that go there.
        vectors: input vectors: tokens of all samples.
    """

    macs: int
    values_in: float
    values_out: float
    vectors: int


@dataclass(frozen=True)
class Price:
    """What an engine takes for some work.

    Attributes:
        seconds: that it is busy, with all of the work.
        energy: by component [J], of all of the work.
    """

    seconds: float
    energy: Mapping[str, float]


class Engine(Family):
    """What computes products of matrices.

    A kind derives from `ArrayEngine` where products are those of arrays of cells: accuracy and cost follow from the
    array. It derives from `ExactEngine` where products are exact, and says its `price`.
    """

    family: ClassVar[str] = "engine"
    simulated: ClassVar[bool] = False
    """True if cells compute, so that what they do to numbers is worth simulating."""

    kind: str


class ArrayEngine(Engine):
    """Common to engines that compute on arrays of cells: the array, and how it is used.

    `written` says which of two activations is stored in cells: the right-hand one (K^T, V) or the left-hand one (Q, P);
    weights are always stored. `resident` is for how many tokens there are cells; None means for as many as are needed.
    """

    cost_fields: ClassVar[tuple[str, ...]] = ("resident",)
    simulated: ClassVar[bool] = True

    array: Crossbar
    written: Literal["right", "left"] = "right"
    resident: Count | None = None


@register
class CrossbarEngine(ArrayEngine):
    """Products on memristive crossbars."""

    kind: Literal["crossbar"] = "crossbar"


@register
class SramEngine(ArrayEngine):
    """Products in arrays of SRAM cells that compute with currents: one bit per cell, written without error.

    `arrays` is how many there are for weights; None means as many as are needed. Weights that find no room are loaded
    from memory off the chip again for every use.
    """

    cost_fields: ClassVar[tuple[str, ...]] = ("resident", "arrays")

    kind: Literal["sram"] = "sram"
    arrays: Count | None = None

    @model_validator(mode="after")
    def _one_bit(self) -> SramEngine:
        if self.array.bits_per_cell != 1:
            raise ValueError(
                f"array.bits_per_cell = {self.array.bits_per_cell}: an SRAM cell holds one bit; set it to 1"
            )
        return self


class ExactEngine(Engine):
    """Common to engines whose products are exact. Layers share the engine: it has one stage at a time."""

    def price(self, work: Work) -> Price | None:
        """Time and energy of some work, without what memories take; None where nobody has described the engine."""
        return None

    def own_area(self) -> float:
        """Area of the engine [m^2], beside that of tiles."""
        return 0.0


@register
class DigitalEngine(ExactEngine):
    """Products in exact digital logic that nobody has described: it has no price."""

    kind: Literal["digital"] = "digital"


@register
class SimdEngine(ExactEngine):
    """Products in the vector lanes of the cores (see `chip.vector`).

    `lanes` is how many work at once: a number, which all layers share, or those of the cores that hold the layer's
    weights.
    """

    cost_fields: ClassVar[tuple[str, ...]] = ("ops_per_mac", "lanes")

    kind: Literal["simd"] = "simd"
    ops_per_mac: Factor
    lanes: Count | Literal["of_layer"] = "of_layer"


@register
class GpuEngine(ExactEngine):
    """Products on a GPU, as a roofline: the slower of computing and of moving operands, and the launch of a kernel."""

    cost_fields: ClassVar[tuple[str, ...]] = (
        *("peak", "efficiency", "bandwidth", "bytes_per_value", "launch_time", "power", "area"),
    )

    kind: Literal["gpu"] = "gpu"
    peak: Annotated[OpsPerSecond, Field(gt=0)]
    """A multiplication and an addition are two operations."""
    efficiency: PositiveShare
    bandwidth: Annotated[BytesPerSecond, Field(gt=0)]
    bytes_per_value: Factor
    launch_time: Annotated[Seconds, Field(ge=0)]
    power: Annotated[Watts, Field(gt=0)]
    area: Annotated[SquareMetres, Field(gt=0)]


class Attention(Spec):
    """Who computes Q K^T (`key`: K is stored) and P V (`value`: V is stored).

    `array` sets both. `arrays` says whether all layers rewrite one set of arrays (`shared`) or each has its own
    (`per_layer`): it decides wear, and which faults a layer sees.
    """

    aliases: ClassVar[dict[str, tuple[str, ...]]] = {
        "array": ("key.array", "value.array"),
        "kind": ("key.kind", "value.kind"),
    }

    key: Engine
    value: Engine
    arrays: Literal["shared", "per_layer"] = "per_layer"

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """`array = ...` is short for the same crossbar in both roles."""
        if "array" not in data:
            return data
        both = {"kind": "crossbar", "array": data["array"]}
        return {"key": both, "value": both, **{key: value for key, value in data.items() if key != "array"}}

    @property
    def array(self) -> Crossbar:
        """The array of both roles.

        Raises:
            BadInput: the roles have different ones, or none.
        """
        engines = (self.key, self.value)
        arrays = {engine.array for engine in engines if isinstance(engine, ArrayEngine)}
        if len(arrays) != 1 or not all(isinstance(engine, ArrayEngine) for engine in engines):
            raise BadInput(
                "attention.array: key and value do not share one crossbar; name attention.key.array or .value.array"
            )
        return arrays.pop()


class Accelerator(Spec):
    """A machine for transformers: `projection` holds static weights, `attention` the K and V of run time.

    `chip` is what surrounds the arrays; None where nobody has described it, so that pricing is refused.
    """

    catalog_kind: ClassVar[str] = "accelerator"
    cost_fields: ClassVar[tuple[str, ...]] = ("chip",)

    title: str = ""
    projection: Engine
    attention: Attention
    chip: Chip | None = None
