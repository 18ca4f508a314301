"""Resolves every product of a workload once: its engine and array, and what rules, clip and conditioning make of it.

Rules find products by the names that `convert` gives their operands (see `hardware.operand_names`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import Rule, RuleBook
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul

Product = StaticMatMul | DynamicMatMul


@dataclass(frozen=True, eq=False)
class PlacedOp:
    """A product, and where it is computed.

    Attributes:
        op: the product.
        engine: with the array that is used.
        role: whose engine of the accelerator that is, such as "projection": what messages name.
        pattern: of the rule that holds for it; empty without one.
        max_code: the largest code that a clip leaves of those of `array`; None if there is no clip.
        shared: True if all layers use the same arrays for K or V.
        rotated: True if its inputs are rotated (static weights only).
        kv: how K or V is conditioned; None if it is written unchanged.
        holds_cells: True if its weights take cells of their own, False if an earlier product stores them.
    """

    op: Product
    engine: Engine
    role: str
    pattern: str = ""
    max_code: int | None = None
    shared: bool = False
    rotated: bool = False
    kv: Conditioning | None = None
    holds_cells: bool = True

    @cached_property
    def array(self) -> Crossbar:
        """The engine's array as the conditioning uses it: what digits count, and how many copies there are of each."""
        assert isinstance(self.engine, ArrayEngine)
        return _used(self.engine.array, self.kv) if self.kv else self.engine.array

    @property
    def stage(self) -> str:
        """The stage of the layer to which the product belongs."""
        return self.op.stage

    @property
    def stored_side(self) -> str:
        """Which factor lies in cells: "right" (weights, K^T, V), "left" (Q, P), or "" off arrays."""
        return self.engine.written if isinstance(self.engine, ArrayEngine) else ""


LayerOp = Op | PlacedOp
"""What a layer does: products where they are computed, and the operations between them."""


def role_of(op: Product) -> str:
    """The role of a product: what its matrix is."""
    return "projection" if isinstance(op, StaticMatMul) else op.role


def rule_names(op: Product) -> tuple[str, ...]:
    """All names by which rules find a product."""
    if isinstance(op, StaticMatMul):
        return op.rule_names or weight_rule_names(op.name)
    return kv_rule_names(op.name)


@dataclass(frozen=True)
class EngineChoice:
    """What decides where products are computed.

    Attributes:
        hardware: the engines.
        clip: of K and V in memristive cells.
        rules: what is different for some products.
        weights: how static weights are conditioned.
        kv: how K and V in memristive cells are.
    """

    hardware: Accelerator
    clip: KVClip | None = None
    rules: RuleBook = field(default_factory=RuleBook)
    weights: WeightMitigation = field(default_factory=WeightMitigation)
    kv: KVConditioning | None = None

    @cached_property
    def engines(self) -> dict[str, Engine]:
        """The engine of each role."""
        projection, attention = self.hardware.projection, self.hardware.attention
        return {"projection": projection, "attention.key": attention.key, "attention.value": attention.value}

    def pattern(self, op: Product) -> str:
        """The pattern of the rule that holds for a product; empty without one."""
        found = self.rules.match(rule_names(op)) if self.rules.rules else None
        return "" if found is None else found[0]

    def layer(self, ops: Iterable[Op], tenants: frozenset[int]) -> list[LayerOp]:
        """The operations of a layer with its products resolved.

        Args:
            ops: the operations.
            tenants: as `tenants` returns them.

        Raises:
            BadInput: see `resolve`.
        """
        return [
            self.resolve(op, holds_cells=id(op) not in tenants) if isinstance(op, (StaticMatMul, DynamicMatMul)) else op
            for op in ops
        ]

    def tenants(self, ops: Iterable[Op]) -> frozenset[int]:
        """The products (by `id`) whose weights lie in the cells of an earlier product.

        Weights that modules share are stored once, unless rules put them into different arrays or rotate only some.
        """
        tied = [op for op in ops if isinstance(op, StaticMatMul)]
        if not self.rules.rules:
            return frozenset(id(op) for op in tied if op.shared_with)
        shared = {op.shared_with for op in tied if op.shared_with}
        stored: set[tuple[object, ...]] = set()
        found: set[int] = set()
        for op in tied if shared else ():
            name = op.shared_with or op.name
            if name not in shared or not isinstance((placed := self.resolve(op)).engine, ArrayEngine):
                continue
            key = (name, op.inputs, op.outputs, placed.engine.array, *self._ranges(op), placed.rotated)
            if op.shared_with and key in stored:
                found.add(id(op))
            stored.add(key)
        return frozenset(found)

    def _ranges(self, op: StaticMatMul) -> tuple[object, object]:
        """Scale and percentile of weights, where a rule or the conditioning changes those of the array."""
        rule = self.rules.rule(rule_names(op))
        engine = self.engines["projection" if rule.on == "hardware" else rule.on]
        array = rule.array or (engine.array if isinstance(engine, ArrayEngine) else None)
        names = ("scale", "percentile")
        values = [[getattr(each, name, None) for each in (rule, self.weights, array)] for name in names]
        scale, percentile = (next((value for value in own if value is not None), None) for own in values)
        return scale, percentile

    def resolve(self, op: Product, *, holds_cells: bool = True) -> PlacedOp:
        """Engine, clip and conditioning of a product, and whether its inputs are rotated.

        Raises:
            BadInput: a rule asks for what has no price, or the array cannot be used as the conditioning says.
        """
        found = self.rules.match(rule_names(op)) if self.rules.rules else None
        pattern, rule = found or ("", _NO_RULE)
        if rule.digital:
            raise BadInput(
                f"rules[{pattern!r}]: keeps {op.name} digital, which the workload does not; trace it with this rule"
            )
        usual = self.engines[role_of(op)]
        role = role_of(op) if rule.on == "hardware" else rule.on
        engine = self.engines[role] if found is None else _ruled(self.engines[role], usual, rule, op)
        if rule.array is not None:
            _check_prices(rule.array, pattern, written=isinstance(op, DynamicMatMul))
        if isinstance(op, StaticMatMul):
            rotated = self._rotated(engine, rule)
            return PlacedOp(op, engine, role, pattern, rotated=rotated, holds_cells=holds_cells)
        kv = self._conditioning(op, engine, rule)
        clip = rule.clip
        if clip == "model":
            clip = self.clip if self.clip is not None and isinstance(usual, CrossbarEngine) else "none"
        try:
            top = _max_code(clip, engine, kv)
        except BadInput as error:
            raise BadInput(f"rules[{pattern!r}]: {error}" if pattern else str(error)) from error
        shared = self.hardware.attention.arrays == "shared" and rule.array is None
        return PlacedOp(op, engine, role, pattern, top, shared, kv=kv)

    def _rotated(self, engine: Engine, rule: Rule) -> bool:
        """What the rule says, or else what holds for weights in memristive cells."""
        if not isinstance(engine, ArrayEngine):
            return False
        if rule.rotate is not None:
            return rule.rotate
        return self.weights.rotate and (isinstance(self.hardware.projection, CrossbarEngine) or rule.array is not None)

    def _conditioning(self, op: DynamicMatMul, engine: Engine, rule: Rule) -> Conditioning | None:
        """What holds for K or V: tokens in memristive cells, for which no rule has a clip of its own.

        Where it is said operand by operand, who chose it has asked for the clips.
        """
        if not self.kv or not isinstance(engine, ArrayEngine) or engine.written != "right":
            return None
        memristive = isinstance(self.engines[op.role], CrossbarEngine)
        if isinstance(self.kv, Mapping):
            return self.kv.get(op.name) if memristive or rule.array is not None else None
        return self.kv if memristive and rule.clip == "model" else None


_NO_RULE = Rule()


def _ruled(engine: Engine, usual: Engine, rule: Rule, op: Product) -> Engine:
    """The engine with the array that a rule names. What is written is what the rule says, or else the usual engine."""
    if rule.array is not None:
        resident = engine.resident if isinstance(engine, ArrayEngine) else None
        engine = CrossbarEngine(array=rule.array, resident=resident)
    if not isinstance(engine, ArrayEngine) or isinstance(op, StaticMatMul):
        return engine
    written = rule.write
    if written == "hardware":
        written = usual.written if isinstance(usual, ArrayEngine) else "right"
    return engine.model_copy(update={"written": "right" if op.turned else written})


def _check_prices(array: Crossbar, pattern: str, *, written: bool) -> None:
    missing = ["cost"] if array.cost is None else []
    if written:
        missing += [f"cell.{name}" for name in ("write_time", "write_energy") if getattr(array.cell, name) is None]
    for name in missing:
        raise BadInput(
            f"rules[{pattern!r}].array.{name}: is missing, so that these arrays have no price; add it, or take others"
        )


def _max_code(clip: Clip | tuple[Clip, ...], engine: Engine, kv: Conditioning | None) -> int | None:
    """What a clip leaves, or the gentlest of those of several heads, as a code of the array as it is used."""
    if not isinstance(engine, ArrayEngine):
        return None
    clips = clip if isinstance(clip, tuple) else (clip,)
    known = [each for each in clips if isinstance(each, KVClip)]
    array = _used(engine.array, kv) if kv else engine.array
    for each in known:
        each.check(array)
    return max(each.max_code(array) for each in known) if len(known) == len(clips) else None


@cache
def _used(array: Crossbar, kv: Conditioning) -> Crossbar:
    return kv.on(array)
