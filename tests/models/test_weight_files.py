"""Weights that do not belong to the model of config.json, and files of weights that were not downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model
from ohmformer.models.weight_files import check_downloaded, check_regular, left_over
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


def saved(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A classifier of three classes whose file of weights was changed."""
    two_layers(folder, "BertForSequenceClassification", num_labels=3)
    weights = load_file(folder / "model.safetensors")
    weights = change(weights) or weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.update({QUERY: torch.zeros(3, 3)}), rf"{QUERY} has shape \[3, 3\] in the files but \[16, 16\]"),
        (lambda w: w.update({QUERY: torch.zeros(256)}), rf"{QUERY} has shape \[256\] in the files but \[16, 16\]"),
        (lambda w: w.update({QUERY: torch.zeros(16, 16, dtype=torch.int8)}), rf"safetensors: {QUERY} is stored as I8"),
        (
            lambda w: w.update({"classifier.weight": torch.zeros(7, 16), "classifier.bias": torch.zeros(7)}),
            r"classifier\.weight has shape \[7, 16\] in the files but \[3, 16\] by config.json, which has 3 classes",
        ),
        (lambda w: w.update({"bert.further.weight": torch.zeros(3)}), r"no place for \(bert\.further\.weight\)"),
        (lambda w: {f"module.{name}": value for name, value in w.items()}, "name weights in another way: module.bert"),
        (lambda w: {"other": torch.zeros(1)}, "name weights in another way: other is there"),
        (lambda w: {name: value for name, value in w.items() if name != QUERY}, rf"has no trained weights for {QUERY}"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(tmp_path: Path, change: Callable[..., Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        load_model(f"hf:{saved(tmp_path / 'b', change)}")
    assert "\n" not in str(caught.value)


def test_types_are_told_of_files_of_torch_and_of_quantized_models(tmp_path: Path) -> None:
    folder = saved(tmp_path / "b", lambda w: None)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, QUERY: weights[QUERY].to(torch.int32)}, folder / "pytorch_model.bin")
    torch.save(torch.nn.Linear(2, 2), folder / "training_args.bin")
    with pytest.raises(BadInput, match=rf"pytorch_model\.bin: {QUERY} is stored as int32"):
        load_model(f"hf:{folder}")
    torch.save({name: value.half() for name, value in weights.items()}, folder / "pytorch_model.bin")
    assert load_model(f"hf:{folder}") is not None


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut, "is cut off or has bytes added: its [0-9,]+ bytes"),
        (lambda content: content + b"x", "is cut off or has bytes added"),
        (lambda content: content[:7], "does not begin with a safetensors header"),
        (lambda content: b"<!DOCTYPE html>" + b" " * 99, "does not begin with a safetensors header"),
        (lambda content: bytes(999), "does not begin with a safetensors header"),
        (lambda content: content[:8] + b"x" + content[9:], "does not begin with a safetensors header"),
    ],
)
def test_damaged_safetensors_are_named(tmp_path: Path, change: Callable[[bytes], bytes], said: str) -> None:
    file = saved(tmp_path / "b", lambda w: None) / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(BadInput, match=rf"b/model\.safetensors: .*{said}.*; download it again"):
        load_model(f"hf:{file.parent}")


def header_of(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a safetensors file."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def test_unknown_types_are_not_told_as_damage(tmp_path: Path) -> None:
    file = saved(tmp_path / "b", lambda w: None) / "model.safetensors"
    header_of(file, lambda header: header[QUERY].update(dtype="F3_Q9"))
    told = rf"b/model\.safetensors: {QUERY} is stored as F3_Q9: type F3_Q9 is not known to safetensors [0-9.]+; install"
    with pytest.raises(BadInput, match=told):
        load_model(f"hf:{file.parent}")


def test_a_header_that_contradicts_itself_is_damaged(tmp_path: Path) -> None:
    file = saved(tmp_path / "b", lambda w: None) / "model.safetensors"
    header_of(file, lambda header: header[QUERY].update(dtype="F64"))
    with pytest.raises(BadInput, match="gives a weight a type, shape or place that does not fit"):
        load_model(f"hf:{file.parent}")


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (cut, "cut off|damaged"),
        (lambda content: content[:20], "cut off|damaged"),
        (lambda content: b"\0\xff" * 500, "is damaged, or was not written by torch.save"),
        (lambda content: b"<!DOCTYPE html>", "is damaged, or was not written by torch.save"),
        ([1, 2], "holds a list instead of a table of tensors"),
        (torch.zeros(2), "holds a Tensor instead of a table of tensors"),
        ({QUERY: np.zeros(2)}, "holds Python objects other than tensors"),
        (torch.nn.Linear(2, 2), "holds Python objects other than tensors"),
    ],
)
def test_damaged_pickles_are_named(tmp_path: Path, content: Any, said: str, old_format: bool) -> None:
    folder = saved(tmp_path / "b", lambda w: None)
    file, weights = folder / "pytorch_model.bin", load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    spoils = callable(content) and not isinstance(content, torch.nn.Module)
    torch.save(weights if spoils else content, file, _use_new_zipfile_serialization=not old_format)
    if spoils:
        file.write_bytes(content(file.read_bytes()))
    with pytest.raises(BadInput, match=rf"b/pytorch_model\.bin: .*({said})") as caught:
        load_model(f"hf:{folder}")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "weight_map: must be a table"),
        ('{"weight_map": {"a": 1}}', "weight_map: must be a table"),
        ('{"weight_map": {"a": "model-7.safetensors"}}', "names the file model-7.safetensors, which is not there"),
    ],
)
def test_an_index_of_weights_that_cannot_be_used_is_named(tmp_path: Path, content: str, said: str) -> None:
    folder = saved(tmp_path / "b", lambda w: None)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadInput, match=rf"model\.safetensors\.index\.json: {said}"):
        load_model(f"hf:{folder}")


def pipe(file: Path) -> None:
    os.mkfifo(file)


PLACES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "a.model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", [*PLACES, "preprocessor_config.json", "chat_template.jinja", "added_tokens.json"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "a pipe or device"),
        (lambda file: file.symlink_to("/dev/zero"), "a pipe or device"),
        (lambda file: file.symlink_to("nowhere"), "a broken link"),
        (Path.mkdir, "a folder"),
    ],
)
def test_what_is_no_file_is_not_opened(tmp_path: Path, name: str, make: Callable[[Path], Any], said: str) -> None:
    make(tmp_path / name)
    with pytest.raises(BadInput, match=rf"{name}: is {said}; put a regular file there"):
        load_model(f"hf:{tmp_path}")


def test_a_single_file_and_a_folder_without_configuration_are_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path / "b", lambda w: None)
    with pytest.raises(BadInput, match=r": is a file; name the folder that holds config\.json"):
        load_model(f"hf:{folder / 'model.safetensors'}")
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"b has no config\.json; name the folder of a model"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize("content", [b"", bytes(99), b"GGUF" + bytes(99), b"GGUF\x03\0\0\0" + b"\xff" * 99])
def test_a_damaged_gguf_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=r"m\.gguf'.*: cannot be read \(\w+: .*\); download it again") as caught:
        load_model(f"hf:{tmp_path / 'm.gguf'}")
    assert "\n" not in str(caught.value)


def test_a_pipe_in_the_folder_of_the_pooling_is_not_opened(tmp_path: Path) -> None:
    folder = saved(tmp_path / "b", lambda w: None)
    (folder / "1_Pooling").mkdir()
    pipe(folder / "1_Pooling" / "config.json")
    with pytest.raises(BadInput, match=r"1_Pooling/config\.json: is a pipe or device"):
        load_model(f"hf:{folder}")


def test_a_folder_that_may_not_be_entered_is_named(foreign: Path) -> None:
    (foreign / "model.safetensors").touch()
    foreign.chmod(0o600)
    for check in (check_regular, check_downloaded):
        with pytest.raises(BadInput, match="may not be entered; change its permissions"):
            check(foreign)
