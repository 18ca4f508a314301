"""Where a product is computed: the engine of its role, or what a rule says; clip and conditioning of what is stored.

Rules find products by the names that `convert` gives them: that of the module, of a bank of matrices, of a place in a
module (`attn#1`), or of an operand (`attn.K`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import OrderedRules, Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul

Product = StaticMatMul | DynamicMatMul


@dataclass(frozen=True)
class Where:
    """Where a product is computed.

    Attributes:
        engine: with the array that is used.
        role: of the accelerator, whose engine that is: what messages name.
        max_code: the largest code that a clip leaves of those of `array`; None for all that there are.
        shared: whether layers share the arrays of keys and values.
        rotated: whether the inputs of static weights are rotated.
        kv: how K or V is conditioned; None where it is written as it comes.
    """

    engine: Engine
    role: str
    max_code: int | None = None
    shared: bool = False
    rotated: bool = False
    kv: Conditioning | None = None

    @property
    def array(self) -> Crossbar:
        """The engine's array as the conditioning uses it: what digits count, and how many copies there are of each."""
        assert isinstance(self.engine, ArrayEngine)
        return _used(self.engine.array, self.kv) if self.kv else self.engine.array


def role_of(op: Product) -> str:
    """The role of a product: what its matrix is."""
    return "projection" if isinstance(op, StaticMatMul) else op.role


def where(
    op: Product,
    hardware: Accelerator,
    clip: KVClip | None,
    rules: OrderedRules,
    weights: WeightMitigation,
    kv: KVConditioning | None = None,
) -> Where:
    """Engine, clip and conditioning of a product, and whether its inputs are rotated.

    Raises:
        BadInput: a rule asks for what has no price, or the array cannot be used as the conditioning says.
    """
    found = first_match(op, rules) if rules else None
    role, engines = role_of(op), _engines(hardware)
    shared = isinstance(op, DynamicMatMul) and hardware.attention.arrays == "shared"
    stored = isinstance(op, DynamicMatMul) and isinstance(engines[role], CrossbarEngine)
    if found is None:
        own = _conditioning(op, engines[role], Rule(), hardware, kv)
        top = _max_code(clip if stored else None, engines[role], own)
        return Where(engines[role], role, top, shared, _rotated(op, engines[role], Rule(), hardware, weights), own)
    pattern, rule = found
    if rule.digital:
        raise BadInput(
            f"rules[{pattern!r}]: keeps {op.name} digital, which the workload does not; trace it with this rule"
        )
    role = role if rule.on == "hardware" else rule.on
    engine = _ruled(engines[role], engines[role_of(op)], rule, op)
    if rule.array is not None:
        _check_prices(rule.array, pattern, written=isinstance(op, DynamicMatMul))
    own = _conditioning(op, engine, rule, hardware, kv)
    chosen = (clip if stored else None) if rule.clip == "model" else rule.clip
    try:
        top = _max_code(chosen, engine, own) if isinstance(op, DynamicMatMul) else None
    except BadInput as error:
        raise BadInput(f"rules[{pattern!r}]: {error}") from error
    rotated = _rotated(op, engine, rule, hardware, weights)
    return Where(engine, role, top, shared and rule.array is None, rotated, own)


def _rotated(op: Product, engine: Engine, rule: Rule, hardware: Accelerator, weights: WeightMitigation) -> bool:
    """What the rule says, or else what holds for weights in memristive cells."""
    if not isinstance(op, StaticMatMul) or not isinstance(engine, ArrayEngine):
        return False
    memristive = isinstance(hardware.projection, CrossbarEngine) or rule.array is not None
    return (weights.rotate and memristive) if rule.rotate is None else rule.rotate


def _conditioning(
    op: Product, engine: Engine, rule: Rule, hardware: Accelerator, kv: KVConditioning | None
) -> Conditioning | None:
    """What holds for K or V: tokens in memristive cells, for which no rule has a clip of its own.

    Where it is said operand by operand, who chose it has asked for the clips.
    """
    if not kv or not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine) or engine.written != "right":
        return None
    memristive = isinstance(_engines(hardware)[op.role], CrossbarEngine)
    if isinstance(kv, Mapping):
        return kv.get(op.name) if memristive or rule.array is not None else None
    return kv if memristive and rule.clip == "model" else None


def first_match(op: Product, rules: OrderedRules) -> tuple[str, Rule] | None:
    """The first rule whose pattern matches one of the names of a product; None without one."""
    names = _names(op)
    return next(((p, rule) for p, rule in rules if any(fnmatchcase(name, p) for name in names)), None)


def _names(op: Product) -> tuple[str, ...]:
    if isinstance(op, StaticMatMul):
        return op.name, op.name.partition("[")[0].partition("#")[0]
    site = op.name.rpartition(".")[0]
    return op.name, site, site.partition("#")[0]


def _engines(hardware: Accelerator) -> dict[str, Engine]:
    attention = hardware.attention
    return {"projection": hardware.projection, "attention.key": attention.key, "attention.value": attention.value}


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


def _max_code(clip: Clip | tuple[Clip, ...] | None, engine: Engine, kv: Conditioning | None) -> int | None:
    """What a clip leaves, or the gentlest of those of several heads, as a code of the array as it is used."""
    clips = clip if isinstance(clip, tuple) else (clip,)
    known = [each for each in clips if isinstance(each, KVClip)]
    if not isinstance(engine, ArrayEngine):
        return None
    array = _used(engine.array, kv) if kv else engine.array
    for each in known:
        each.check(array)
    if len(known) < len(clips):
        return None
    return max(each.max_code(array) for each in known)


@cache
def _used(array: Crossbar, kv: Conditioning) -> Crossbar:
    return kv.on(array)
