"""Rules: settings that differ from those of the accelerator, for modules whose name matches a pattern.

The first rule that matches an operand holds. `RuleBook` does the matching for both halves of the simulator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ohmformer import catalog
from ohmformer.array.spec import Crossbar, Scale
from ohmformer.errors import BadInput, Misplaced, cut, fault_of, given, shown, suggest
from ohmformer.key_search import former_names
from ohmformer.mitigation.spec import Clip, KVClip, WeightMitigation
from ohmformer.quantities import Percentile
from ohmformer.schema import Spec

Role = Literal["projection", "attention.key", "attention.value"]
Place = Literal["hardware", "digital", Role]


class Rule(Spec):
    """Settings for the modules that a pattern matches; each field replaces a default.

    Attributes:
        on: the engine of the accelerator that computes their products; `hardware` for the engine of their role.
        array: crossbars to use; None for those of the engine.
        scale: the values that share one scale; None for that of the crossbar.
        percentile: percentile of the magnitudes that the scale covers, in percent; None for that of the crossbar.
        write: which of two activations is written into cells: the right-hand one (K^T, V) or the left-hand one;
            `hardware` for that of the engine.
        clip: clip of K and V; a list has one entry for each head of K and V; `model` for the clip of the model.
        rotate: whether the inputs of static weights are rotated; None for the setting of the whole model.
        weights: mitigation of static weights, in place of that of the whole model; None for that. The rule's own
            `scale`, `percentile` and `rotate` have precedence.
    """

    on: Place = "hardware"
    array: Crossbar | None = None
    scale: Scale | None = None
    percentile: Percentile | None = None
    write: Literal["hardware", "right", "left"] = "hardware"
    clip: Literal["model"] | Clip | Annotated[tuple[Clip, ...], Field(min_length=1)] = "model"
    rotate: bool | None = None
    weights: WeightMitigation | None = None

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, value: Any) -> Any:
        """Read one clip, or a list with one clip for each head."""
        if value == "model":
            return value
        if value == [] or value == ():
            raise ValueError("is empty; give one clip for each head, or leave the line out")
        return tuple(_clip(entry) for entry in value) if isinstance(value, (list, tuple)) else _clip(value)

    @model_validator(mode="after")
    def _agrees(self) -> Rule:
        """Refuse settings of crossbars for digital modules."""
        if self.on == "digital" and self.array is not None:
            raise ValueError("says on = 'digital' and names an array; leave one of them out")
        if self.on == "digital" and self.rotate:
            raise ValueError("says on = 'digital' and rotate = true, which is for crossbars; leave one of them out")
        if self.on == "digital" and self.weights is not None:
            raise ValueError("says on = 'digital' and sets weights, which is for crossbars; leave one of them out")
        return self

    @property
    def digital(self) -> bool:
        """True if the rule keeps modules off crossbars."""
        return self.on == "digital"


Rules = Mapping[str, Rule | Crossbar | str | None]
"""Name pattern (as in fnmatch) -> rule; the first match wins. See `as_rule` for the shorthands."""

OrderedRules = tuple[tuple[str, Rule], ...]
"""Pairs of pattern and rule in order of precedence: a tuple, since sorting the keys of a table would lose the order."""


@dataclass(frozen=True)
class RuleBook:
    """Ordered rules that decide which one holds for an operand.

    The names of an operand come from `ohmformer.hardware.operand_names`.

    Attributes:
        rules: pairs of pattern and rule, in order of precedence.
    """

    rules: OrderedRules = ()

    @classmethod
    def read(cls, rules: Rules | RuleBook | None) -> RuleBook:
        """Make a rule book from what users write.

        Raises:
            BadInput: see `as_rule`.
        """
        if isinstance(rules, RuleBook):
            return rules
        if not isinstance(rules, Mapping | None):
            raise BadInput(f"rules is {given(rules)}; give a mapping of name patterns to rules, or None")
        return cls(tuple((pattern, as_rule(pattern, value)) for pattern, value in (rules or {}).items()))

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], str, Rule], ...]:
        return tuple((re.compile(translate(pattern)), pattern, rule) for pattern, rule in self.rules)

    def match(self, names: Iterable[str]) -> tuple[str, Rule] | None:
        """The first rule whose pattern matches any of the names, with its pattern; None if there is none."""
        operand_names = tuple(names)
        for expression, pattern, rule in self._compiled:
            if any(expression.match(name) for name in operand_names):
                return pattern, rule
        return None

    def rule(self, names: Iterable[str]) -> Rule:
        """The first rule that matches; if there is none, a rule that changes nothing."""
        match = self.match(names)
        return Rule() if match is None else match[1]


@dataclass(frozen=True)
class RecordedRules:
    """A rule book that records its use, so that a rule without effect can be refused.

    Attributes:
        book: the rules.
        used: patterns of the rules that held for some operand.
        of_kv: patterns of the rules that held for K or V, or for a layer whose operands are not known.
        names: all names that were looked up.
    """

    book: RuleBook
    used: set[str] = field(default_factory=set)
    of_kv: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def match(self, names: Iterable[str]) -> tuple[str, Rule]:
        """The first pattern and rule that match; if there is none, "" and a rule that changes nothing."""
        looked_up = tuple(names)
        self.names.update(looked_up)
        match = self.book.match(looked_up)
        if match is None:
            return "", Rule()
        self.used.add(match[0])
        return match

    def match_kv(self, names: Iterable[str]) -> tuple[str, Rule]:
        """As `match`, for the names of K or V, or of a layer whose operands are not known."""
        match = self.match(names)
        self.of_kv.add(match[0])
        return match

    def rule(self, names: Iterable[str]) -> Rule:
        """The first rule that matches; if there is none, a rule that changes nothing."""
        return self.match(names)[1]

    def check(self) -> None:
        """Check that every rule has an effect.

        Raises:
            BadInput: a rule held for no operand, or it clips K and V, or chooses their written factor, and held for
                static weights alone.
        """
        for pattern, rule in self.book.rules:
            surplus = "clip" if rule.clip != "model" else "write" if rule.write != "hardware" else ""
            if surplus and pattern in self.used and pattern not in self.of_kv:
                raise BadInput(
                    f"rules: {pattern!r}: sets {surplus}, which is for K and V, but matches only static weights; "
                    f"leave {surplus} out, or name K or V, such as '*.K'"
                )
        for pattern, rule in self.book.rules:
            if pattern not in self.used:
                alone = RuleBook(((pattern, rule),))
                shadowed = any(alone.match((name,)) for name in self.names)
                if shadowed:
                    raise BadInput(f"rules: {pattern!r} stands behind rules that match first; correct or remove it")
                wider = f"*{pattern.strip('*')}*"
                part = next((name for name in sorted(self.names) if RuleBook(((wider, rule),)).match((name,))), "")
                remedy = f"patterns match whole names: {wider!r} would match {part}" if part else "correct or remove it"
                raise BadInput(f"rules: {pattern!r} matches no module that multiplies; {remedy}")


def as_rule(pattern: str, value: Any) -> Rule:
    """The rule that a value or shorthand stands for.

    Args:
        pattern: name pattern of the rule, for messages.
        value: a `Rule`, or a shorthand. None or "digital" keeps modules digital. "projection", "attention.key" or
            "attention.value" names an engine of the accelerator. A `Crossbar`, or the name of one in the library, is
            the array to use. A table has the fields of a rule.

    Raises:
        BadInput: the value is something else, or a field of the table has a fault.
    """
    if not isinstance(pattern, str):
        raise BadInput(f"rules[{shown(pattern)}]: a name pattern is text, such as 'encoder.*'; write it in quotes")
    try:
        return _rule(value, {})
    except Misplaced as fault:
        written = "" if fault.keys or fault.value is None else f" = {shown(fault.value)}"
        keys = "".join(f".{key}" for key in fault.keys)
        inner = f" = {shown(fault.value)}" if fault.keys and isinstance(fault.value, (str, int, float, list)) else ""
        raise BadInput(f"rules[{shown(pattern)}]{keys}{written}{inner}: {fault.reason}") from None


def ordered_rules(table: Any, context: Mapping[str, Any] | None = None) -> OrderedRules:
    """The rules of a table of a file, in its order.

    Args:
        table: pattern -> what `as_rule` takes; or ordered rules.
        context: context of pydantic's validation: the folder in which files are looked up.

    Raises:
        Misplaced: a rule has a fault; its pattern is the first key.
    """
    if not isinstance(table, (Mapping, list, tuple)):
        raise Misplaced((), table, 'is not a table; write [rules] with lines such as "encoder.*" = "digital"')
    pairs = list(table.items() if isinstance(table, Mapping) else table)
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise Misplaced((), table, 'is not a table; write [rules] with lines such as "encoder.*" = "digital"')
    rules: list[tuple[str, Rule]] = []
    for pattern, value in pairs:
        try:
            rules.append((str(pattern), _rule(value, context or {})))
        except Misplaced as fault:
            raise fault.below(str(pattern)) from None
    return tuple(rules)


def _rules_of_field(value: Any, info: ValidationInfo) -> OrderedRules:
    return ordered_rules(value, info.context)


RulesField = Annotated[OrderedRules, BeforeValidator(_rules_of_field)]
"""Type of a field of a specification that reads a table of rules, in the order of its file."""


def _rule(value: Any, context: Mapping[str, Any]) -> Rule:
    """As `as_rule`, with faults as `Misplaced`."""
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
            return _read({"array": value}, context)
        case str():
            known = ["digital", *get_args(Role), *catalog.entries("array")]
            raise Misplaced((), value, f"is neither an engine nor an array; {suggest(value, known)}")
        case Mapping():
            return _read(dict(value), context)
    raise Misplaced(
        (),
        value if isinstance(value, (int, float, list)) else None,
        f"is of type {type(value).__name__}; give 'digital', the name of an engine or array, or a table (in Python "
        "also a Rule, a Crossbar or None)",
    )


def _read(table: dict[str, Any], context: Mapping[str, Any]) -> Rule:
    """The rule of a table of its fields."""
    if table and not set(table) & {*Rule.model_fields, *former_names(Rule)}:
        known = ", ".join(name for name in Rule.model_fields if name != "provenance")
        unknown = cut(", ".join(map(str, table)))
        raise Misplaced((), None, f"has keys {unknown}; a rule has {known}; put a pattern with dots in quotes")
    try:
        return Rule.model_validate(table, context=dict(context))
    except ValidationError as error:
        raise fault_of(error, Rule, table) from None


def _clip(value: Any) -> Any:
    """A clip from a table; a `KVClip` or "none" unchanged."""
    if isinstance(value, dict):
        try:
            return KVClip.model_validate(value)
        except ValidationError as error:
            raise fault_of(error, KVClip, value) from None
    if not isinstance(value, KVClip) and value != "none":
        raise ValueError(
            "is not a clip; write 'model', 'none', { alpha = 2.0, beta = 0.25 } or a list of these by head"
        )
    return value
