"""Refuses rules that fit no operand of a traced model, in the words of `convert`."""

from __future__ import annotations

from collections.abc import Iterable

from ohmformer.capture.product import Product
from ohmformer.errors import BadInput
from ohmformer.hardware.operand_names import kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import RecordedRules
from ohmformer.workload.spec import DynamicMatMul, Op, StaticMatMul


def check_clips(rules: RecordedRules, work: Product | str, ops: Iterable[Op]) -> None:
    """Check that a rule with several clips has one for each head of K or V.

    Args:
        rules: the rules.
        work: a product, or the kind of other work.
        ops: its operations.

    Raises:
        BadInput: a rule has another number of clips.
    """
    heads = work.groups if isinstance(work, Product) else None
    for op in (op for op in ops if isinstance(op, DynamicMatMul)):
        clip = rules.book.rule(kv_rule_names(op.name)).clip
        if not isinstance(clip, tuple):
            continue
        # Without `groups`, the heads of the operation may include copies.
        if op.kv_heads % len(clip) if heads is None else heads != len(clip):
            count = f"{len(clip)} clips for {heads or op.kv_heads} heads of K and V"
            raise BadInput(f"rules: {op.name}: clip: {count}; give one for each head")


def check_rotation(rules: RecordedRules, ops: Iterable[Op | None], unseen: Iterable[str]) -> None:
    """Check that every rule with `rotate = true` holds for static weights.

    Args:
        rules: the rules, with their use.
        ops: all operations of the model.
        unseen: layers that the sample does not reach, which may have static weights.

    Raises:
        BadInput: a rule holds for K or V alone.
    """
    weights = [op.rule_names or weight_rule_names(op.name) for op in ops if isinstance(op, StaticMatMul)]
    matches = [rules.book.match(names) for names in (*weights, *((name,) for name in unseen))]
    used = {match[0] for match in matches if match is not None}
    for pattern, rule in rules.book.rules:
        if rule.rotate and pattern in rules.used - used:
            raise BadInput(f"rules: {pattern!r}: rotate = true, but it matches no static weights on crossbars")
