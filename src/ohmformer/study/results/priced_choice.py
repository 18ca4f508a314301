"""What calibration chose for K, V and weights, as settings that decide a price, and the key of prices."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape

from ohmformer.hardware.operand_names import kv_rule_names, weight_rule_names
from ohmformer.hardware.rules import OrderedRules, RuleBook
from ohmformer.schema import replace
from ohmformer.study.results.key import digest
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostSettings


def rules_with_choice(rules: OrderedRules, chosen: Chosen) -> OrderedRules:
    """Rules with one more in front for each operand whose clip, or whose mitigation of weights, calibration chose.

    Each new rule keeps the other settings of the rule that holds for the operand.
    """
    book = RuleBook(rules)
    weights = chosen.weights.weights if chosen.weights else {}
    longest_first = sorted(weights, key=len, reverse=True)  # the name of a whole parameter also matches its parts
    mitigated = (
        (escape(name), replace(book.rule(weight_rule_names(name)), "weights", weights[name])) for name in longest_first
    )
    clipped = (
        (escape(name), replace(book.rule(kv_rule_names(name)), "clip", clip)) for name, clip in chosen.clips.items()
    )
    return (*mitigated, *clipped, *rules)


def study_key(pairs: Iterable[tuple[CostSettings, Chosen | None]]) -> str:
    """The hash of the settings of all points, each with what calibration chose for it."""
    return digest([digest(_plain(settings, chosen)) for settings, chosen in pairs])


def _plain(settings: CostSettings, chosen: Chosen | None) -> str:
    if chosen is None:
        return repr(sorted(settings.canonical().items()))
    clipped = settings.model_copy(update={"rules": rules_with_choice(settings.rules, chosen)})
    conditionings = {name: spec.canonical() for name, spec in chosen.kv.items()}
    return repr([*sorted(clipped.canonical().items()), *sorted(conditionings.items())])
