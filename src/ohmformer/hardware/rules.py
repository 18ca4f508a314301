"""Exceptions from what an accelerator does by default, for the modules of a model that a name pattern matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from ohmformer import catalog
from ohmformer.array.spec import Crossbar, Scale
from ohmformer.errors import BadInput, Misplaced, cut, fault_of, shown, suggest
from ohmformer.mitigation.spec import Clip, KVClip
from ohmformer.quantities import Percentile
from ohmformer.schema import Spec, former_names

Role = Literal["projection", "attention.key", "attention.value"]
Place = Literal["hardware", "digital", Role]


class Rule(Spec):
    """What is different for some modules.

    Attributes:
        on: which engine of the accelerator computes their products; `hardware` leaves that to it.
        array: crossbars of their own, in place of the engine's.
        scale: what shares one scale, in place of what the crossbar says.
        percentile: which percentile of magnitudes the scale covers, in place of what the crossbar says.
        write: which of two activations is written into cells: the right-hand one (K^T, V) or the left-hand one;
            `hardware` leaves that to the engine.
        clip: of K and V, in place of the model's; a list has one entry for each head of K and V.
        rotate: whether the inputs of static weights are rotated, in place of what holds for the whole model.
    """

    on: Place = "hardware"
    array: Crossbar | None = None
    scale: Scale | None = None
    percentile: Percentile | None = None
    write: Literal["hardware", "right", "left"] = "hardware"
    clip: Literal["model"] | Clip | Annotated[tuple[Clip, ...], Field(min_length=1)] = "model"
    rotate: bool | None = None

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, value: Any) -> Any:
        """One clip, or a list with one for each head."""
        if value == "model":
            return value
        return tuple(_clip(each) for each in value) if isinstance(value, (list, tuple)) else _clip(value)

    @model_validator(mode="after")
    def _agrees(self) -> Rule:
        """Digital modules have no arrays."""
        if self.on == "digital" and self.array is not None:
            raise ValueError("says on = 'digital' and names an array; leave one of them out")
        if self.on == "digital" and self.rotate:
            raise ValueError("says on = 'digital' and rotate = true, which is for crossbars; leave one of them out")
        return self

    @property
    def digital(self) -> bool:
        """Whether the rule keeps modules off crossbars."""
        return self.on == "digital"


Rules = Mapping[str, Rule | Crossbar | str | None]
"""Name pattern (as in fnmatch) -> what is different; the first match wins. See `as_rule` for the shorthands."""

OrderedRules = tuple[tuple[str, Rule], ...]
"""Patterns and rules, the first match first: a table of a file, in an order that no sorting of keys can lose."""


@dataclass(frozen=True)
class RuleBook:
    """Rules in order: says which one holds for an operand, whichever half of the simulator asks.

    The names of an operand come from `ohmformer.hardware.operand_names`.
    """

    rules: OrderedRules = ()

    @classmethod
    def read(cls, rules: Rules | RuleBook | None) -> RuleBook:
        """A rule book from what users write.

        Raises:
            BadInput: see `as_rule`.
        """
        if isinstance(rules, RuleBook):
            return rules
        return cls(tuple((pattern, as_rule(pattern, value)) for pattern, value in (rules or {}).items()))

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], str, Rule], ...]:
        return tuple((re.compile(translate(pattern)), pattern, rule) for pattern, rule in self.rules)

    def match(self, names: Iterable[str]) -> tuple[str, Rule] | None:
        """The first rule whose pattern matches any of the names, with its pattern; None if there is none."""
        own = tuple(names)
        for expression, pattern, rule in self._compiled:
            if any(expression.match(name) for name in own):
                return pattern, rule
        return None

    def rule(self, names: Iterable[str]) -> Rule:
        """The first rule that matches; without one, the rule that changes nothing."""
        found = self.match(names)
        return Rule() if found is None else found[1]


@dataclass(frozen=True)
class RecordedRules:
    """A rule book that remembers which patterns matched, to refuse a rule that has no effect.

    Attributes:
        book: the rules.
        used: patterns that matched first.
        names: all names that were looked up.
    """

    book: RuleBook
    used: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def match(self, names: Iterable[str]) -> tuple[str, Rule]:
        """As `RuleBook.match`; without a rule that matches, "" and the rule that changes nothing."""
        own = tuple(names)
        self.names.update(own)
        found = self.book.match(own)
        if found is None:
            return "", Rule()
        self.used.add(found[0])
        return found

    def rule(self, names: Iterable[str]) -> Rule:
        """As `RuleBook.rule`."""
        return self.match(names)[1]

    def check(self) -> None:
        """Refuse patterns that never matched first.

        Raises:
            BadInput: there is one.
        """
        for pattern, rule in self.book.rules:
            if pattern not in self.used:
                alone = RuleBook(((pattern, rule),))
                shadowed = any(alone.match((name,)) for name in self.names)
                why = "stands behind rules that match first" if shadowed else "matches no module that multiplies"
                raise BadInput(f"rules: {pattern!r} {why}; correct or remove it")


def as_rule(pattern: str, value: Any) -> Rule:
    """A rule, or the rule that a shorthand stands for.

    None or "digital" keeps modules digital; "projection", "attention.key" or "attention.value" names an engine of the
    accelerator; a `Crossbar`, or the name of one in the library, is the array to use; a table has the fields of a rule.

    Raises:
        BadInput: it is none of these.
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
    """The rules of a table, in its order.

    Args:
        table: pattern -> what `as_rule` takes; or rules that are in order already.
        context: of pydantic's validation: where files are looked up.

    Raises:
        Misplaced: a rule that does not fit, with its pattern as first key.
    """
    if not isinstance(table, (Mapping, list, tuple)):
        raise Misplaced((), table, 'is no table; write [rules] with lines such as "encoder.*" = "digital"')
    pairs = list(table.items() if isinstance(table, Mapping) else table)
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise Misplaced((), table, 'is no table; write [rules] with lines such as "encoder.*" = "digital"')
    found: list[tuple[str, Rule]] = []
    for pattern, value in pairs:
        try:
            found.append((str(pattern), _rule(value, context or {})))
        except Misplaced as fault:
            raise fault.below(str(pattern)) from None
    return tuple(found)


def _rule(value: Any, context: Mapping[str, Any]) -> Rule:
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
            raise Misplaced((), value, suggest(value, known))
        case Mapping():
            return _read(dict(value), context)
    raise Misplaced(
        (),
        None,
        f"is of type {type(value).__name__}; give a Rule, a Crossbar, the name of an engine or array, a table or None",
    )


def _read(table: dict[str, Any], context: Mapping[str, Any]) -> Rule:
    if table and not set(table) & {*Rule.model_fields, *former_names(Rule)}:
        known = ", ".join(name for name in Rule.model_fields if name != "provenance")
        found = cut(", ".join(map(str, table)))
        raise Misplaced((), None, f"has keys {found}; a rule has {known}; put a pattern with dots in quotes")
    try:
        return Rule.model_validate(table, context=dict(context))
    except ValidationError as error:
        raise fault_of(error, Rule, table) from None


def _clip(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            return KVClip.model_validate(value)
        except ValidationError as error:
            raise fault_of(error, KVClip, value) from None
    if not isinstance(value, KVClip) and value != "none":
        raise ValueError("is no clip; write 'model', 'none', { alpha = 2.0, beta = 0.25 } or a list of these by head")
    return value
