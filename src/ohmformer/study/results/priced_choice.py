"""What calibration chose for K and V, as settings that decide a price, and the key of prices. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape

from ohmformer.hardware.operand_names import kv_rule_names
from ohmformer.hardware.rules import OrderedRules, RuleBook
from ohmformer.schema import replace
from ohmformer.study.results.key import digest
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostSettings


def rules_with_clips(rules: OrderedRules, chosen: Chosen) -> OrderedRules:
    """Rules with one more in front for each operand whose clip calibration chose.

    Each new rule keeps the other settings of the rule that holds for the operand.
    """
    book = RuleBook(rules)
    pairs = ((name, replace(book.rule(kv_rule_names(name)), "clip", clip)) for name, clip in chosen.clips.items())
    return (*((escape(name), rule) for name, rule in pairs), *rules)


def study_key(pairs: Iterable[tuple[CostSettings, Chosen | None]]) -> str:
    """The hash of the settings of all points, each with the clips and conditionings that were chosen for it."""
    return digest([digest(_plain(settings, chosen)) for settings, chosen in pairs])


def _plain(settings: CostSettings, chosen: Chosen | None) -> str:
    if chosen is None:
        return repr(sorted(settings.canonical().items()))
    clipped = settings.model_copy(update={"rules": rules_with_clips(settings.rules, chosen)})
    conditionings = {name: spec.canonical() for name, spec in chosen.kv.items()}
    return repr([*sorted(clipped.canonical().items()), *sorted(conditionings.items())])
