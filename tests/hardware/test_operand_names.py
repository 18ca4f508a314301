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
