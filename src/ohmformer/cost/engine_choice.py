"""Engine choice: resolves every product of a workload to its engine, array, clip and conditioning, once.

`hardware.assignment` decides. Rules match the names that `convert` gives to operands (see `hardware.operand_names`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache

from ohmformer.array.prices.differences import check_laws
from ohmformer.array.spec import Crossbar
from ohmformer.cost.scaled_array_prices import Same
from ohmformer.errors import BadInput
from ohmformer.hardware.assignment import assign_kv, assign_weight
from ohmformer.hardware.operand_names import kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import Rule, RuleBook
from ohmformer.hardware.spec import Accelerator, ArrayEngine, Engine
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul

Product = StaticMatMul | DynamicMatMul


@dataclass(frozen=True, eq=False)
class PlacedOp:
    """A product with the engine that computes it.

    Attributes:
        op: the product.
        engine: the engine, with the array that a rule may have named.
        role: role of the engine in the accelerator, such as "projection"; messages name it.
        pattern: pattern of the rule that matches the product; empty if none does.
        max_code: the largest code of `array` that a clip leaves; None if there is no clip.
        shared: True if all layers use the same arrays for K or V.
        rotated: True if its inputs are rotated (static weights only).
        scaled: True if each of its inputs is multiplied by a factor (static weights only).
        conditioning: how K or V is conditioned; None if it is written unchanged.
        holds_cells: True if its weights take cells of their own, False if an earlier product stores them.
    """

    op: Product
    engine: Engine
    role: str
    pattern: str = ""
    max_code: int | None = None
    shared: bool = False
    rotated: bool = False
    scaled: bool = False
    conditioning: Conditioning | None = None
    holds_cells: bool = True

    @cached_property
    def array(self) -> Crossbar:
        """The engine's array as the conditioning uses it, with its digit weights and redundancy."""
        assert isinstance(self.engine, ArrayEngine)
        return _conditioned_array(self.engine.array, self.conditioning) if self.conditioning else self.engine.array

    @property
    def digital(self) -> int:
        """Number of tokens of K or V per sample, at most, that stay digital: the first and the last ones."""
        return 0 if self.conditioning is None else self.conditioning.most_digital_tokens

    @property
    def stage(self) -> str:
        """Name of the stage of the product."""
        return self.op.stage


LayerOp = Op | PlacedOp
"""An operation of a layer: a product with its engine, or an operation without an engine."""


def role_of(op: Product) -> str:
    """The role of a product: "projection", "attention.key" or "attention.value"."""
    return "projection" if isinstance(op, StaticMatMul) else op.role


def rule_names(op: Product) -> tuple[str, ...]:
    """All names by which rules match a product."""
    if isinstance(op, StaticMatMul):
        return op.rule_names or weight_rule_names(op.name)
    return kv_rule_names(op.name)


@dataclass(frozen=True)
class EngineChoice:
    """The settings that decide where products are computed.

    Attributes:
        hardware: the engines.
        clip: clip of K and V in memristive cells.
        rules: exceptions for products by name.
        weights: mitigation of static weights.
        conditioning: of K and V in memristive cells: one for all, or operand name -> its own.
    """

    hardware: Accelerator
    clip: KVClip | None = None
    rules: RuleBook = field(default_factory=RuleBook)
    weights: WeightMitigation = field(default_factory=WeightMitigation)
    conditioning: KVConditioning | None = None

    def pattern(self, op: Product) -> str:
        """The pattern of the rule that matches a product; empty if none does."""
        match = self.rules.match(rule_names(op)) if self.rules.rules else None
        return "" if match is None else match[0]

    def layer(self, ops: Iterable[Op], tenants: frozenset[int]) -> list[LayerOp]:
        """The operations of a layer, each product with its engine.

        Args:
            ops: the operations.
            tenants: the result of `tenants` for the whole workload.

        Raises:
            BadInput: see `resolve`.
        """
        return [
            self.resolve(op, holds_cells=id(op) not in tenants) if isinstance(op, (StaticMatMul, DynamicMatMul)) else op
            for op in ops
        ]

    def tenants(self, ops: tuple[Op, ...]) -> frozenset[int]:
        """The products whose weights lie in the cells of an earlier product, as the `id` of each.

        Weights that modules share are stored once, unless rules put them into different arrays or mitigate only some.
        """
        if not self.rules.rules:
            return _sharing(Same(ops))
        tied = [op for op in ops if isinstance(op, StaticMatMul)]
        shared = {op.shared_with for op in tied if op.shared_with}
        stored: set[tuple[object, ...]] = set()
        tenants: set[int] = set()
        for op in tied if shared else ():
            name = op.shared_with or op.name
            if name not in shared or not isinstance((placed := self.resolve(op)).engine, ArrayEngine):
                continue
            key = (name, op.inputs, op.outputs, placed.engine.array, placed.rotated, self._mitigation(op))
            if op.shared_with and key in stored:
                tenants.add(id(op))
            stored.add(key)
        return frozenset(tenants)

    def _mitigation(self, op: StaticMatMul) -> WeightMitigation:
        """What is done to static weights beside their array and rotation."""
        return assign_weight(self.hardware, self.rules.rule(rule_names(op)), self.weights).mitigation

    def resolve(self, op: Product, *, holds_cells: bool = True) -> PlacedOp:
        """Decide engine, clip, conditioning and rotation of a product.

        Args:
            op: the product.
            holds_cells: see `PlacedOp`.

        Raises:
            BadInput: a rule asks for something that has no price, or the conditioning does not fit the array.
        """
        match = self.rules.match(rule_names(op)) if self.rules.rules else None
        pattern, rule = match or ("", _NO_RULE)
        if rule.digital:
            raise BadInput(
                f"rules[{pattern!r}]: keeps {op.name} digital, which the workload does not; trace it with this rule"
            )
        if rule.array is not None:
            _check_prices(rule.array, pattern, written=isinstance(op, DynamicMatMul))
        if isinstance(op, StaticMatMul):
            weight = assign_weight(self.hardware, rule, self.weights)
            assert weight.engine is not None
            return PlacedOp(
                op,
                weight.engine,
                weight.role,
                pattern,
                rotated=weight.rotated,
                scaled=weight.mitigation.scaling is not None,
                holds_cells=holds_cells,
            )
        return self._resolve_kv(op, pattern, rule)

    def _resolve_kv(self, op: DynamicMatMul, pattern: str, rule: Rule) -> PlacedOp:
        """As `resolve`, for a product with K or V."""
        assigned = assign_kv(self.hardware, rule, op.role)
        engine = assigned.engine
        assert engine is not None
        if op.turned and isinstance(engine, ArrayEngine):  # the trace has already exchanged the factors
            engine = engine.model_copy(update={"written": "right"})
        conditioning = assigned.conditioning(op.name, self.conditioning)
        if conditioning is not None:
            conditioning.check_tokens(op.name, causal=op.causal)
        if isinstance(engine, ArrayEngine) and engine.overflow == "refuse":
            _check_cells(op, engine, assigned.role, 0 if conditioning is None else conditioning.most_digital_tokens)
        clip = (self.clip or "none") if assigned.clip == "model" else assigned.clip
        try:
            max_code = _max_code(clip, engine, conditioning)
        except BadInput as error:
            raise BadInput(f"rules[{pattern!r}]: {error}" if pattern else str(error)) from error
        return PlacedOp(op, engine, assigned.role, pattern, max_code, assigned.shared, conditioning=conditioning)


@lru_cache(maxsize=64)
def _sharing(ops: Same) -> frozenset[int]:
    """The products, as the `id` of each, whose weights another product among the operations stores."""
    assert isinstance(ops.value, Iterable)
    return frozenset(id(op) for op in ops.value if isinstance(op, StaticMatMul) and op.shared_with)


_NO_RULE = Rule()


def _check_prices(array: Crossbar, pattern: str, *, written: bool) -> None:
    """Refuse an array of a rule that has no prices.

    Raises:
        BadInput: it has none, they do not hold for its size, or `written` is True and its cell has no write prices.
    """
    missing = ["cost"] if array.cost is None else []
    if written:
        missing += [f"cell.{name}" for name in ("write_time", "write_energy") if getattr(array.cell, name) is None]
    for name in missing:
        raise BadInput(
            f"rules[{pattern!r}].array.{name}: is missing, so these arrays have no price; add it, or take another array"
        )
    check_laws(array, f"rules[{pattern!r}].array")


def _check_cells(op: DynamicMatMul, engine: ArrayEngine, role: str, digital: int) -> None:
    """Refuse more tokens than cells.

    Raises:
        BadInput: the product needs cells for more tokens than there are.
    """
    tokens = op.queries if engine.written == "left" else op.tokens - digital
    if engine.resident is not None and tokens > engine.resident:
        raise BadInput(
            f"hardware.{role}.resident = {engine.resident}: {op.name} needs cells for {tokens:,} tokens, and overflow "
            "= 'refuse'; raise resident, shorten the sequence, or take overflow = 'rewrite'"
        )


def _max_code(clip: Clip | tuple[Clip, ...], engine: Engine, conditioning: Conditioning | None) -> int | None:
    """The largest code that a clip leaves, or the least strict of the clips of several heads; None without a clip."""
    if not isinstance(engine, ArrayEngine):
        return None
    clips = clip if isinstance(clip, tuple) else (clip,)
    fixed = [entry for entry in clips if isinstance(entry, KVClip)]
    array = _conditioned_array(engine.array, conditioning) if conditioning else engine.array
    for entry in fixed:
        entry.check(array)
    return max(entry.max_code(array) for entry in fixed) if len(fixed) == len(clips) else None


@cache
def _conditioned_array(array: Crossbar, conditioning: Conditioning) -> Crossbar:
    """The array with the changes that a conditioning makes to it."""
    return conditioning.on(array)
