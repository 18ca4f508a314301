"""Rules as files hold them: shorthands, order, lists, and errors in one line."""

from __future__ import annotations

import pytest

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import RecordedRules, Rule, RuleBook, as_rule, ordered_rules
from ohmformer.mitigation.spec import KVClip
from ohmformer.schema import load


def test_shorthands() -> None:
    array = load(Crossbar, "clipformer_2024")
    assert as_rule("*", None) == as_rule("*", "digital") == Rule(on="digital")
    assert as_rule("*", "attention.key") == Rule(on="attention.key")
    assert as_rule("*", array) == as_rule("*", "clipformer_2024") == Rule(array=array)
    assert as_rule("*", Rule(scale="column")) == as_rule("*", {"scale": "column"})
    assert as_rule("*", {"array": {"base": "clipformer_2024", "bits": 4}}).array != array


def test_a_clip_may_be_a_list_with_one_for_each_head() -> None:
    listed = as_rule("*", {"clip": [{"alpha": 1.0, "beta": 0.5}, "none"]})
    assert listed.clip == (KVClip(alpha=1.0, beta=0.5), "none")
    assert as_rule("*", {"clip": {"alpha": 1.0, "beta": 0.5}}).clip == KVClip(alpha=1.0, beta=0.5)
    assert as_rule("*", {"clip": "model"}).clip == as_rule("*", {}).clip == "model"
    again = Rule.model_validate(listed.canonical())
    assert again == listed


def test_rules_keep_their_order() -> None:
    table = {"z.*": "digital", "a.*": {"percentile": 99.9}, "m.*": None}
    found = ordered_rules(table)
    assert [pattern for pattern, _ in found] == ["z.*", "a.*", "m.*"]
    assert ordered_rules(found) == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("digitl", r"rules\['p'\] = 'digitl': is neither an engine nor an array; did you mean 'digital'"),
        ({"scale": "colum"}, r"rules\['p'\]\.scale = 'colum': must be .* did you mean 'column'"),
        ({"percentile": 0}, r"rules\['p'\]\.percentile = 0.*> 0"),
        (
            {"scael": "column"},
            r"rules\['p'\]: has keys scael; a rule has on, array, .*put a pattern with dots in quotes",
        ),
        ({"scale": "column", "bits": 3}, r"rules\['p'\]\.bits: is not a key here"),
        ({"clip": "some"}, r"rules\['p'\]\.clip = 'some': is not a clip"),
        ({"clip": []}, r"rules\['p'\]\.clip"),
        ({"clip": [{"alpha": -1}]}, r"rules\['p'\]\.clip"),
        (3, r"rules\['p'\] = 3: is of type int"),
    ],
)
def test_what_is_not_a_rule_is_refused_in_one_line(value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        as_rule("p", value)
    assert "\n" not in str(caught.value)


def test_the_first_rule_that_matches_any_name_holds() -> None:
    first, second = Rule(scale="column"), Rule(on="digital")
    book = RuleBook((("*.attn", first), ("*", second)))
    assert book.match(("blocks.0.attn.K", "blocks.0.attn")) == ("*.attn", first)
    assert book.match(("blocks.0.mlp",)) == ("*", second)
    assert RuleBook().match(("anything",)) is None
    assert RuleBook().rule(("anything",)) == Rule()
    assert RuleBook.read({"*.attn": first, "*": None}) == RuleBook(book.rules)
    assert RuleBook((("bank[[]1]", first),)).match(("bank[1]",)), "brackets stand for themselves where they are quoted"


def test_rules_without_effect_are_refused_with_the_reason() -> None:
    rules = RecordedRules(RuleBook.read({"a*": "projection", "ab": None}))
    assert rules.rule(("ab",)) == Rule(on="projection")
    with pytest.raises(BadInput, match="'ab' stands behind rules that match first"):
        rules.check()
    rules = RecordedRules(RuleBook.read({"c": None}))
    assert rules.match(("a",)) == ("", Rule())
    with pytest.raises(BadInput, match="'c' matches no module that multiplies"):
        rules.check()
    rules.rule(("c",))
    rules.check()
    rules = RecordedRules(RuleBook.read({"attn.*": None}))
    rules.rule(("blocks.0.attn.proj",))
    with pytest.raises(BadInput, match=r"whole names: '\*attn\.\*' would match blocks\.0\.attn\.proj"):
        rules.check()
