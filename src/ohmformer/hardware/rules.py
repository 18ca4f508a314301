"""Exceptions from what an accelerator does by default, for the modules of a model that a name pattern matches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from ohmformer import catalog
from ohmformer.array.spec import Crossbar, Percentile, Scale
from ohmformer.errors import BadInput, suggest
from ohmformer.mapping.spec import KVClip
from ohmformer.schema import Spec, load

Role = Literal["projection", "attention.key", "attention.value"]
Place = Literal["hardware", "digital", Role]
Clip = KVClip | Literal["none"]


class Rule(Spec):
    """What is different for some modules.

    Attributes:
        on: which engine of the accelerator computes their products; `hardware` leaves that to it.
        array: crossbars of their own, in place of the engine's.
        scale: what shares one scale, in place of what the crossbar says.
        percentile: which percentile of magnitudes the scale covers, in place of what the crossbar says.
        write: which of two activations is written into cells: the right-hand one (K^T, V) or the left-hand one.
        clip: of K and V, in place of the model's; a list has one entry for each head of K and V.
    """

    on: Place = "hardware"
    array: Crossbar | None = None
    scale: Scale | None = None
    percentile: Percentile | None = None
    write: Literal["right", "left"] = "right"
    clip: Literal["model"] | Clip | Annotated[tuple[Clip, ...], Field(min_length=1)] = "model"

    @property
    def digital(self) -> bool:
        """Whether the rule keeps modules off crossbars."""
        return self.on == "digital" and self.array is None


Rules = Mapping[str, Rule | Crossbar | str | None]
"""Name pattern (as in fnmatch) -> what is different; the first match wins. See `as_rule` for the shorthands."""


def as_rule(pattern: str, value: Any) -> Rule:
    """A rule, or the rule that a shorthand stands for.

    None or "digital" keeps modules digital; "projection", "attention.key" or "attention.value" names an engine of the
    accelerator; a `Crossbar`, or the name of one in the library, is the array to use.

    Raises:
        BadInput: it is none of these.
    """
    match value:
        case Rule():
            return value
        case None:
            return Rule(on="digital")
        case Crossbar():
            return Rule(array=value)
        case str() if value in ("digital", *get_args(Role)):
            return Rule.model_validate({"on": value})
        case str() if value in catalog.entries("array") or value.endswith(".toml"):
            return Rule(array=load(Crossbar, value))
        case str():
            known = ["digital", *get_args(Role), *catalog.entries("array")]
            raise BadInput(f"rules[{pattern!r}] = {value!r}: {suggest(value, known)}")
    raise BadInput(
        f"rules[{pattern!r}] is of type {type(value).__name__}; give a Rule, a Crossbar, the name of an engine or None"
    )
