"""Where a product is computed: the engine of its role, or what a rule says of it; and the clip of what is stored.

Rules find products by the names that `convert` gives them: that of the module, of a bank of matrices, of a place in a
module (`attn#1`), or of an operand (`attn.K`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Clip, OrderedRules, Rule
from ohmformer.hardware.spec import Accelerator, ArrayEngine, CrossbarEngine, Engine
from ohmformer.mapping.spec import KVClip, WeightMitigation
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul

Product = StaticMatMul | DynamicMatMul


@dataclass(frozen=True)
class Where:
    """Where a product is computed.

    Attributes:
        engine: with the array that is used.
        role: of the accelerator, whose engine that is: what messages name.
        max_code: the largest code that a clip leaves; None for all that there are.
        shared: whether layers share the arrays of keys and values.
        rotated: whether the inputs of static weights are rotated.
    """

    engine: Engine
    role: str
    max_code: int | None = None
    shared: bool = False
    rotated: bool = False


def role_of(op: Product) -> str:
    """The role of a product: what its matrix is."""
    return "projection" if isinstance(op, StaticMatMul) else op.role


def where(
    op: Product, hardware: Accelerator, clip: KVClip | None, rules: OrderedRules, weights: WeightMitigation
) -> Where:
    """Engine and clip of a product, and whether its inputs are rotated.

    Raises:
        BadInput: a rule asks for what has no price.
    """
    found = first_match(op, rules) if rules else None
    role, engines = role_of(op), _engines(hardware)
    shared = isinstance(op, DynamicMatMul) and hardware.attention.arrays == "shared"
    stored = isinstance(op, DynamicMatMul) and isinstance(engines[role], CrossbarEngine)
    if found is None:
        top = _max_code(clip if stored else None, engines[role])
        return Where(engines[role], role, top, shared, _rotated(op, engines[role], Rule(), hardware, weights))
    pattern, rule = found
    if rule.digital:
        raise BadInput(
            f"rules[{pattern!r}]: keeps {op.name} digital, which the workload does not; trace it with this rule"
        )
    role = role if rule.on == "hardware" else rule.on
    engine = _ruled(engines[role], engines[role_of(op)], rule, op)
    if rule.array is not None:
        _check_prices(rule.array, pattern, written=isinstance(op, DynamicMatMul))
    chosen = (clip if stored else None) if rule.clip == "model" else rule.clip
    try:
        top = _max_code(chosen, engine) if isinstance(op, DynamicMatMul) else None
    except BadInput as error:
        raise BadInput(f"rules[{pattern!r}]: {error}") from error
    rotated = _rotated(op, engine, rule, hardware, weights)
    return Where(engine, role, top, shared and rule.array is None, rotated)


def _rotated(op: Product, engine: Engine, rule: Rule, hardware: Accelerator, weights: WeightMitigation) -> bool:
    """What the rule says, or else what holds for weights in memristive cells."""
    if not isinstance(op, StaticMatMul) or not isinstance(engine, ArrayEngine):
        return False
    memristive = isinstance(hardware.projection, CrossbarEngine) or rule.array is not None
    return (weights.rotate and memristive) if rule.rotate is None else rule.rotate


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


def _max_code(clip: Clip | tuple[Clip, ...] | None, engine: Engine) -> int | None:
    """What a clip leaves, or the gentlest of those of several heads."""
    clips = clip if isinstance(clip, tuple) else (clip,)
    known = [each for each in clips if isinstance(each, KVClip)]
    if not isinstance(engine, ArrayEngine):
        return None
    for each in known:
        each.check(engine.array)
    return max(each.max_code(engine.array) for each in known) if len(known) == len(clips) else None
