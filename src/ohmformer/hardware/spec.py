"""What an accelerator is: engines, and the roles they play for a transformer's operands."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.schema import Spec


class CrossbarEngine(Spec):
    """Products on memristive crossbars."""

    kind: Literal["crossbar"] = "crossbar"
    array: Crossbar


class DigitalEngine(Spec):
    """Products in exact digital logic."""

    kind: Literal["digital"] = "digital"


Engine = Annotated[CrossbarEngine | DigitalEngine, Field(discriminator="kind")]


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
        """The crossbar of both roles.

        Raises:
            BadInput: the roles have different ones, or none.
        """
        engines = (self.key, self.value)
        arrays = {engine.array for engine in engines if isinstance(engine, CrossbarEngine)}
        if len(arrays) != 1 or not all(isinstance(engine, CrossbarEngine) for engine in engines):
            raise BadInput(
                "attention.array: key and value do not share one crossbar; name attention.key.array or .value.array"
            )
        return arrays.pop()


class Accelerator(Spec):
    """A machine for transformers: `projection` holds static weights, `attention` the K and V of run time."""

    catalog_kind: ClassVar[str] = "accelerator"

    title: str = ""
    projection: Engine
    attention: Attention
