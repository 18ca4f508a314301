"""One assignment of operands to engines, for conversion and pricing."""

import pytest

import ohmformer as of
from ohmformer.hardware.assignment import assign_kv, assign_weight
from ohmformer.hardware.rules import Rule
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation

CLIPFORMER = of.load("clipformer_tcad_2024")
XFORMER = of.load("xformer_tvlsi_2023")
CONDITIONING = of.Conditioning(mean=True)
CLIP = KVClip(alpha=2.0, beta=0.25)


def test_without_a_rule_the_role_decides() -> None:
    """Weights lie in the projection engine, K and V in those of attention."""
    weight = assign_weight(CLIPFORMER, Rule(), WeightMitigation())
    assert (weight.role, weight.array, weight.memristive) == ("projection", CLIPFORMER.projection.array, True)
    key = assign_kv(CLIPFORMER, Rule(), "attention.key")
    assert (key.role, key.array, key.written) == ("attention.key", CLIPFORMER.attention.key.array, "right")
    assert (key.clip, key.memristive) == ("model", True)


def test_a_digital_operand_has_no_engine() -> None:
    """A rule may keep an operand off crossbars, and an exact engine has no arrays."""
    for assigned in (
        assign_weight(CLIPFORMER, Rule(on="digital"), WeightMitigation()),
        assign_kv(CLIPFORMER, Rule(on="digital"), "attention.value"),
    ):
        assert (assigned.role, assigned.engine, assigned.array) == ("", None, None)


def test_a_rule_moves_an_operand_and_changes_its_array() -> None:
    """Engine, scale and percentile of a rule precede those of the mitigation and of the array."""
    mitigation = WeightMitigation(scale="tensor", percentile=99.0)
    moved = assign_weight(CLIPFORMER, Rule(on="attention.key", scale="column"), mitigation)
    assert moved.role == "attention.key"
    assert moved.array == of.replace(of.replace(CLIPFORMER.attention.key.array, "scale", "column"), "percentile", 99.0)


def test_sram_is_neither_clipped_nor_conditioned_nor_rotated() -> None:
    """Mitigation is for memristive cells; an array that a rule names is memristive."""
    key = assign_kv(XFORMER, Rule(), "attention.key")
    assert (key.clip, key.memristive, key.conditioning("attn.K", CONDITIONING)) == ("none", False, None)
    named = assign_kv(XFORMER, Rule(array=CLIPFORMER.projection.array, write="right"), "attention.key")
    assert named.memristive
    assert named.conditioning("attn.K", {"attn.K": CONDITIONING}) == CONDITIONING
    sram = of.replace(XFORMER, "projection", XFORMER.attention.key)
    assert not assign_weight(sram, Rule(), WeightMitigation(rotate=True)).rotated
    assert assign_weight(sram, Rule(rotate=True), WeightMitigation()).rotated


@pytest.mark.parametrize(
    ("rule", "chosen", "expected"),
    [
        (Rule(), CONDITIONING, CONDITIONING),
        (Rule(clip=CLIP), CONDITIONING, None),
        (Rule(clip=CLIP), {"attn.K": CONDITIONING}, CONDITIONING),
        (Rule(), {"attn.V": CONDITIONING}, None),
        (Rule(write="left"), CONDITIONING, None),
        (Rule(), None, None),
    ],
)
def test_conditioning(rule: Rule, chosen: KVConditioning | None, expected: of.Conditioning | None) -> None:
    """One conditioning for all spares operands with a clip of their own; one by name does not."""
    assert assign_kv(CLIPFORMER, rule, "attention.key").conditioning("attn.K", chosen) == expected


def test_weights_may_have_a_compensation_of_drift_and_keys_may_not() -> None:
    """Also where a rule moves keys to the arrays of weights, or weights to those of keys."""
    hardware = of.replace(CLIPFORMER, "projection.array.drift_compensation", "column")
    array = assign_weight(hardware, Rule(), WeightMitigation()).array
    assert array is not None
    assert array.drift_compensation == "column"
    assert assign_kv(hardware, Rule(), "attention.key").array == CLIPFORMER.attention.key.array
    with pytest.raises(of.BadInput, match=r"hardware.projection.array.drift_compensation = 'column': holds keys"):
        assign_kv(hardware, Rule(on="projection"), "attention.key")
    with pytest.raises(of.BadInput, match=r"rules: array.drift_compensation = 'column': holds values"):
        assign_kv(CLIPFORMER, Rule(array=array), "attention.value")
