"""Assignment: which engine and array an operand gets, and how it is written, from accelerator, rule and mitigation.

Conversion and pricing both call these functions, so a rule means the same for accuracy and for cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Role, Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mitigation.spec import Clip, Conditioning, KVConditioning, WeightMitigation
from ohmformer.schema import replace

KVRole = Literal["attention.key", "attention.value"]

_NO_MITIGATION = WeightMitigation()


@dataclass(frozen=True)
class Assignment:
    """The place of an operand.

    Attributes:
        role: role of the engine in the accelerator, such as "projection"; "" if a rule keeps the operand digital.
        engine: the engine that multiplies by the operand; None if a rule keeps it digital.
        memristive: True if the operand lies in memristive cells, so that mitigation applies to it.
    """

    role: Role | Literal[""]
    engine: Engine | None
    memristive: bool

    @property
    def array(self) -> Crossbar | None:
        """The arrays that hold the operand; None if its products are exact."""
        return self.engine.array if isinstance(self.engine, ArrayEngine) else None


@dataclass(frozen=True)
class WeightAssignment(Assignment):
    """The place of static weights.

    Attributes:
        rotated: True if the weights are stored in a rotated basis, so that their inputs are rotated too.
        mitigation: what else is done to the weights; its scale, percentile and rotation are in `engine` and `rotated`.
    """

    rotated: bool = False
    mitigation: WeightMitigation = _NO_MITIGATION


@dataclass(frozen=True)
class KVAssignment(Assignment):
    """The place of K or V.

    Attributes:
        written: the factor that cells hold: "right" (K^T, V) or "left" (Q, P).
        clip: clip of the written tokens, one per head, "none", or "model" for the clip of the whole model.
        shared: True if all layers rewrite the same arrays.
    """

    written: Literal["right", "left"] = "right"
    clip: Literal["model"] | Clip | tuple[Clip, ...] = "model"
    shared: bool = False

    def conditioning(self, name: str, chosen: KVConditioning | None) -> Conditioning | None:
        """The conditioning of K or V; None if tokens are written unchanged.

        One conditioning for all operands applies where no rule sets a clip. One that is given operand by operand also
        applies beside such a clip, since it was chosen with it.

        Args:
            name: name of the operand, such as `attn.K`.
            chosen: one conditioning for all operands, or operand name -> conditioning.

        Raises:
            BadInput: tokens are to stay digital whose queries are in cells in their place.
        """
        if not chosen or self.array is None or not self.memristive:
            return None
        spec = chosen.get(name) if isinstance(chosen, Mapping) else chosen if self.clip == "model" else None
        if self.written == "right" or spec is None:
            return spec
        spec.check_tokens(name, causal=True, holds_queries=True)
        return None


def assign_weight(hardware: Accelerator, rule: Rule, mitigation: WeightMitigation) -> WeightAssignment:
    """Assign static weights to an engine.

    Args:
        hardware: the accelerator.
        rule: the rule that holds for the weights; `Rule()` if none matches.
        mitigation: settings for all weights in memristive cells; the rule has precedence.

    Raises:
        BadInput: the array does not support the mitigation.
    """
    # SRAM holds exact bits: only memristive cells need mitigation.
    memristive = isinstance(hardware.projection, CrossbarEngine) or rule.array is not None
    mitigation = mitigation if rule.weights is None else rule.weights
    if not memristive:
        mitigation = _NO_MITIGATION
    role, engine = _engine(hardware, "projection", rule, mitigation)
    if not isinstance(engine, ArrayEngine):
        return WeightAssignment(role, engine, memristive)
    rotated = mitigation.rotate if rule.rotate is None else rule.rotate
    if not isinstance(engine, CrossbarEngine):
        return WeightAssignment(role, engine, memristive, rotated)
    if mitigation.changes_cells:
        engine = _with_cells(engine, mitigation)
    return WeightAssignment(role, engine, memristive, rotated, mitigation)


def assign_kv(hardware: Accelerator, rule: Rule, role: KVRole) -> KVAssignment:
    """Assign K or V to an engine.

    Args:
        hardware: the accelerator.
        rule: the rule that holds for the operand; `Rule()` if none matches.
        role: "attention.key" for K, "attention.value" for V.

    Raises:
        BadInput: the array compensates drift, which is for weights alone.
    """
    default = hardware.engines[role]
    placed_role, engine = _engine(hardware, role, rule, _NO_MITIGATION)
    if isinstance(engine, ArrayEngine) and (how := engine.array.drift_compensation) != "none":
        where = f"hardware.{placed_role}.array" if rule.array is None else "rules: array"
        raise BadInput(
            f"{where}.drift_compensation = {how!r}: holds {role.partition('.')[2]}s, whose tokens differ in "
            "age, so that no factor compensates their drift; set it to 'none' where keys or values are written"
        )
    written = rule.write
    if written == "hardware":
        written = default.written if isinstance(default, ArrayEngine) else "right"
    if isinstance(engine, ArrayEngine) and engine.written != written:
        engine = engine.model_copy(update={"written": written})
    crossbar = isinstance(default, CrossbarEngine)
    return KVAssignment(
        placed_role,
        engine,
        memristive=crossbar or rule.array is not None,
        written=written,
        # The model's clip is a remedy for memristive cells; what SRAM holds is exact.
        clip="none" if rule.clip == "model" and not crossbar else rule.clip,
        shared=hardware.attention.arrays == "shared" and rule.array is None,
    )


def _engine(
    hardware: Accelerator, role: Role, rule: Rule, mitigation: WeightMitigation
) -> tuple[Role | Literal[""], Engine | None]:
    """Role and engine that a rule chooses, the engine with the rule's array, scale and percentile.

    Raises:
        BadInput: the array is to correct errors in later weights, which is a mitigation of weights.
    """
    if rule.on == "digital":
        return "", None
    role = role if rule.on == "hardware" else rule.on
    engine = hardware.engines[role]
    if rule.array is not None:
        engine = _with_array(engine, rule.array, role)
    if isinstance(engine, ArrayEngine):
        if engine.array.residual is not None and engine.array.residual.feedback:
            where = f"hardware.{role}.array" if rule.array is None else "rules: array"
            raise BadInput(
                f"{where}.residual.feedback = true: corrections follow the inputs of a model, for static weights "
                "alone; set mitigation.weights = { residual = { feedback = true } }"
            )
        for name in ("scale", "percentile"):
            value = getattr(rule, name) if getattr(rule, name) is not None else getattr(mitigation, name)
            if value is not None and value != getattr(engine.array, name):
                engine = engine.model_copy(update={"array": replace(engine.array, name, value)})
    return role, engine


@lru_cache(maxsize=256)
def _with_cells(engine: CrossbarEngine, mitigation: WeightMitigation) -> CrossbarEngine:
    """The engine with the array that a mitigation makes of its own; the same object whenever both are equal."""
    array = mitigation.on(engine.array)
    return engine if array is engine.array else engine.model_copy(update={"array": array})


def _with_array(engine: Engine, array: Crossbar, role: str) -> CrossbarEngine:
    """An engine with the array that a rule names, whose cells are used and written as those of `engine`.

    Raises:
        BadInput: they are transposable, and the array is not square.
    """
    if not isinstance(engine, ArrayEngine):
        return CrossbarEngine(array=array)
    if engine.write_lines == "transposable" and array.rows != array.columns:
        raise BadInput(
            f"rules: an array of {array.rows} x {array.columns} on hardware.{role}, whose write_lines = "
            "'transposable': sums along its other axis would have another length; take an array with as many rows as "
            "columns, or write_lines = 'rows'"
        )
    return CrossbarEngine(
        array=array, resident=engine.resident, overflow=engine.overflow, write_lines=engine.write_lines
    )
