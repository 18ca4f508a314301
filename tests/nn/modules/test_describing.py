"""What `print` says of a converted model and of its capture table."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer.capture.table import Captured, CaptureTable
from tests.nn.models import Encoder, vit

HARDWARE = of.load("clipformer_tcad_2024")
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
ON = "on 64 x 64 cells of 2 bits, values of 8 bits"


def test_layers_say_what_is_on_which_arrays() -> None:
    text = repr(of.convert(vit(), HARDWARE, sample=IMAGES, rules={"head": None, "blocks.0.attn.K": None}))
    assert f"(patch_embed): CrossbarConv2d(1, 24, kernel_size=(4, 4), stride=(4, 4); weight {ON})" in text
    assert f"(qkv): CrossbarLinear(in_features=24, out_features=72, bias=True; weight {ON})" in text
    assert f"K {ON}; V {ON}" in text
    assert "(head): Linear(in_features=24, out_features=5, bias=True; digital: by rule)" in text
    assert "digital: by rule" not in text.split("(1): Block")[-1].split("(head)")[0]
    tokens = torch.randn(3, 7, 24)
    assert f"WQ {ON}; WK {ON}; WV {ON}; K {ON}; V {ON}" in repr(of.convert(Encoder().eval(), HARDWARE, sample=tokens))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), of.revert])
def test_copies_say_the_same_and_reverted_models_nothing(copied: Any) -> None:
    model = of.convert(vit(), HARDWARE, sample=IMAGES, rules={"head": None})
    assert repr(copied(model)) == repr(vit() if copied is of.revert else model)


def test_all_that_is_written_onto_modules_has_one_prefix() -> None:
    model, rules = Encoder().eval(), {"head": None}
    converted = of.convert(model, HARDWARE, sample=torch.randn(3, 7, 24), rules=rules)
    for ours, theirs in zip(converted.modules(), model.modules(), strict=True):
        more = set(vars(ours)) - set(vars(theirs)) - {"extra_repr"}
        assert all(name.startswith("ohmformer_") for name in more)


def test_a_capture_table_is_text_html_and_plain_values() -> None:
    table = CaptureTable((Captured("a.0", "x W", "projection"), Captured("<b>[red]", "Q K", "digital", "by rule")))
    assert "a.*" in str(table)
    assert "<b>[red]" in str(table)
    assert "digital: by rule" in str(table)
    assert "<td>&lt;b&gt;[red]</td><td>Q K</td><td>digital: by rule</td><td>1</td>" in table._repr_html_()
    assert table.to_dict()[1] == {"module": "<b>[red]", "product": "Q K", "engine": "digital", "reason": "by rule"}
