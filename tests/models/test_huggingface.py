"""Models of Hugging Face: the right head, all weights, or one line; tokenizers and preparation come along."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model, model_digest
from ohmformer.models.preprocessing import preparation
from ohmformer.models.torchvision_stub import installed, works
from tests.tasks import tiny

transformers = pytest.importorskip("transformers")


def test_a_folder_loads_with_the_head_of_its_configuration(tmp_path: Path) -> None:
    model = load_model(f"hf:{tiny.bert(tmp_path / 'b', 'BertForSequenceClassification', num_labels=2)}")
    assert type(model).__name__ == "BertForSequenceClassification"
    assert not model.training
    known = preparation(model)
    assert (known.classes, known.max_tokens) == (2, 12)
    assert known.tokenizer("good film")["input_ids"]


def test_a_model_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.llama(tmp_path / "weights_in_here" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    model, other = (load_model(f"hf:{name}", head="causal-lm") for name in ("package:weights_in_here/model", folder))
    assert model_digest(model) == model_digest(other)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"weights_in_here/model.* has no config\.json"):
        load_model("hf:package:weights_in_here/model")


def test_a_text_encoder_comes_without_its_pooling_layer(tmp_path: Path) -> None:
    model = load_model(f"hf:{tiny.bert(tmp_path / 'b')}", head="encoder")
    assert model.pooler is None


def test_random_weights_only_when_asked_for_and_by_seed(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"b: holds no weights .*weights = 'random'"):
        load_model(f"hf:{folder}")
    before = torch.random.get_rng_state()
    a, b, c = (model_digest(load_model(f"hf:{folder}", weights="random", seed=seed)) for seed in (0, 0, 1))
    assert a == b != c
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was moved"
    assert "random (seed 1)" in preparation(load_model(f"hf:{folder}", weights="random", seed=1)).notes[0]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("text-classification", "no trained weights for classifier.bias .*task.probe = true"),
        ("image-classification", "a bert model has no head for image-classification"),
        ("causal", "must be .*'causal-lm'"),
    ],
)
def test_a_head_that_is_not_there_is_one_line(tmp_path: Path, head: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        load_model(f"hf:{tiny.bert(tmp_path / 'b')}", head=head)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:./nowhere", "there is no such folder"),
        ("hf:nowhere/model.gguf", "there is no such file"),
        ("hf:", "no such model; did you mean .hf:NAME-OR-FOLDER.. known: "),
    ],
)
def test_places_that_do_not_exist_are_one_line(source: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_model(source)


def test_a_name_that_is_neither_cached_nor_reachable_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        BadInput, match=r"nobody/nothing'.*not in the local cache and not reachable.*name a folder"
    ) as caught:
        load_model("hf:nobody/nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(installed() and not works(), reason="transformers needs a torchvision that works, or none")
def test_images_are_prepared_as_transformers_does(tmp_path: Path) -> None:
    folder = tiny.deit(tmp_path / "d")
    known = preparation(load_model(f"hf:{folder}")).images
    assert known is not None
    for number, size in enumerate([(24, 30), (31, 20), (16, 16), (50, 17)]):
        tiny.image(tmp_path / f"{number}.png", number, size)
        reference = transformers.DeiTImageProcessor(**json.loads((folder / "preprocessor_config.json").read_text()))
        with Image.open(tmp_path / f"{number}.png") as opened:
            expected = np.asarray(reference(opened.convert("RGB"))["pixel_values"][0])
        found = known.inputs(known.pixels(tmp_path / f"{number}.png")[None])[0]
        assert torch.allclose(found, torch.as_tensor(expected), atol=1e-5), size


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(BadInput, match=r"need transformers.*ohmformer\[hf\]"):
        load_model("hf:anything")


def test_json_beside_weights_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = Path(tiny.bert(tmp_path / "b", "BertModel"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', encoding="utf-8-sig")
    assert preparation(load_model(f"hf:{folder}")).pooling == "cls"
