"""Names of operands, and the names by which rules find them."""

from __future__ import annotations

from ohmformer.hardware.operand_names import SiteNames, kv_name, kv_rule_names, weight_name, weight_rule_names


def test_weights_are_found_by_their_own_name_and_that_of_the_layer() -> None:
    assert weight_rule_names(weight_name("mlp.0")) == ("mlp.0",)
    assert weight_rule_names(weight_name("experts.up", index=3)) == ("experts.up[3]", "experts.up")
    assert weight_rule_names(weight_name("attn.qkv", part=64)) == ("attn.qkv#64", "attn.qkv")
    assert weight_rule_names(weight_name("attn", part="q")) == ("attn#q", "attn")


def test_k_and_v_are_found_by_operand_site_and_module() -> None:
    assert kv_rule_names(kv_name("attn", "key")) == ("attn.K", "attn")
    assert kv_rule_names(kv_name("h.0.attn#1", "value")) == ("h.0.attn#1.V", "h.0.attn#1", "h.0.attn")
    assert kv_rule_names(kv_name("", "key")) == (".K", "")


def test_sites_of_a_module_are_numbered_by_role_and_keep_their_names() -> None:
    sites = SiteNames()
    assert [sites.name("attn", "key", 0), sites.name("attn", "value", 1)] == ["attn", "attn"]
    assert [sites.name("attn", "key", 2), sites.name("attn", "key", 0)] == ["attn#1", "attn"]
    assert sites.name("other", "key", 2) == "other"


def test_fused_sites_and_separate_products_of_a_module_share_no_name() -> None:
    sites = SiteNames()
    assert [sites.name("attn", "key", 0), sites.name("attn", "attention", 1)] == ["attn", "attn#1"]
    assert [sites.name("attn", "value", 2), sites.name("attn", "value", 3)] == ["attn", "attn#2"]
    assert [sites.name("fused", "attention", 0), sites.name("fused", "key", 1)] == ["fused", "fused#1"]
    assert sites.name("fused", "value", 2) == "fused#1"


def test_a_layer_that_is_named_k_keeps_its_name() -> None:
    sites = SiteNames(["attn", "attn.K", "attn.K.weight", "other.V"])
    assert [sites.name("attn", "attention", 0), sites.name("attn", "key", 1)] == ["attn#0", "attn#1"]
    assert [sites.name("other", "value", 0), sites.name("third", "key", 0)] == ["other#0", "third"]
    assert kv_rule_names(kv_name("attn#0", "key")) == ("attn#0.K", "attn#0", "attn")
