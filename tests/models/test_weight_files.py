"""Weights that do not belong to the model of config.json, and files of weights that were not downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model
from ohmformer.models.weight_files import left_over
from tests.tasks import tiny

transformers = pytest.importorskip("transformers")


def configure(folder: Path, **settings: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def two_layers(folder: Path, cls: str = "BertModel", **settings: Any) -> Path:
    size = {**tiny.SMALL, "num_hidden_layers": 2, "vocab_size": 25, "max_position_embeddings": 12}
    tiny.save(folder, cls, "BertConfig", **size, **settings)
    tiny.tokenizer(folder, pad_token="[PAD]")
    return folder


@pytest.mark.parametrize("form", ["safetensors", "bin", "shards"])
@pytest.mark.parametrize("cls", ["BertModel", "BertForSequenceClassification"])
def test_fewer_layers_than_the_weights_have_are_refused(tmp_path: Path, cls: str, form: str) -> None:
    folder = two_layers(tmp_path / "b", cls)
    if form == "bin":
        model = getattr(transformers, cls).from_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    if form == "shards":
        model = getattr(transformers, cls).from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="5KB")
    configure(folder, num_hidden_layers=1)
    with pytest.raises(BadInput, match=r"config.json has no place for \(.*layer\.1\..* more\).*take the config.json"):
        load_model(f"hf:{folder}")


def test_fewer_layers_of_a_decoder_are_refused(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "l")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.config.num_hidden_layers = 2
    type(model)(model.config).save_pretrained(folder)
    load_model(f"hf:{folder}", head="causal-lm")
    configure(folder, num_hidden_layers=1)
    with pytest.raises(BadInput, match=r"no place for \(.*layers\.1\."):
        load_model(f"hf:{folder}", head="causal-lm")


def test_more_layers_than_the_weights_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no trained weights for .*layer\.2"):
        load_model(f"hf:{configure(two_layers(tmp_path / 'b'), num_hidden_layers=3)}")


def test_a_bias_without_a_place_is_refused(tmp_path: Path) -> None:
    size = {"vocab_size": 25, "max_position_embeddings": 32, "num_key_value_heads": 1}
    tiny.save(tmp_path, "LlamaForCausalLM", "LlamaConfig", **tiny.SMALL, **size, attention_bias=True)
    tiny.tokenizer(tmp_path)
    with pytest.raises(BadInput, match=r"no place for \(.*self_attn\..*bias"):
        load_model(f"hf:{configure(tmp_path, attention_bias=False)}", head="causal-lm")


@pytest.mark.parametrize("cls", ["BertForPreTraining", "BertForMaskedLM", "BertForSequenceClassification"])
def test_heads_that_are_not_needed_are_ignored(tmp_path: Path, cls: str) -> None:
    assert load_model(f"hf:{two_layers(tmp_path / 'b', cls)}", head="encoder") is not None


def test_the_mask_token_of_pretraining_is_ignored(tmp_path: Path) -> None:
    model = load_model(f"hf:{tiny.deit(tmp_path / 'd')}")
    names = ["deit.embeddings.mask_token", "decoder.0.weight", "deit.layers.1.attention.k_proj.bias"]
    assert left_over(model, names) == names[2:]


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_model_without_layers_is_refused(tmp_path: Path, count: int, weights: str) -> None:
    folder = configure(two_layers(tmp_path / "b"), num_hidden_layers=count)
    with pytest.raises(BadInput, match=f"config.json: num_hidden_layers = {count}: must be 1 or more"):
        load_model(f"hf:{folder}", weights=weights)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer")],
)
def test_weights_that_were_not_downloaded_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    folder = two_layers(tmp_path / "b")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=rf"model\.safetensors: .*{said}.*download it again"):
        load_model(f"hf:{folder}")
