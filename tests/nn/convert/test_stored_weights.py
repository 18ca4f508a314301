"""Models without values that get the weights of a checkpoint, and models whose weights accelerate moves."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ohmformer as of

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

PER_VALUE = of.load("clipformer_tcad_2024_per_value")
TOKENS = {"input_ids": torch.randint(0, 60, (2, 6), generator=torch.Generator().manual_seed(0))}


def llama(dtype: torch.dtype = torch.float32, layers: int = 2) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=layers, intermediate_size=64, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def empty(dtype: torch.dtype = torch.float32, layers: int = 2) -> Any:
    """The same model without values; buffers have theirs."""
    with accelerate.init_empty_weights():
        model = llama(dtype, layers)
    model.tie_weights()
    return model


@pytest.fixture(params=["10GB", "20KB"], ids=["one file", "many files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    llama().save_pretrained(tmp_path, max_shard_size=request.param)
    return tmp_path


def logits(model: Any) -> Tensor:
    with torch.no_grad(), of.samples(range(2)):
        found: Tensor = model(**TOKENS).logits
    return found


def converted(model: Any, **options: Any) -> Any:
    return of.convert(model, PER_VALUE, sample=TOKENS, level="noise", **options)


@pytest.mark.parametrize("keep", [True, False])
def test_the_bits_are_those_of_a_model_in_memory(folder: Path, keep: bool) -> None:
    stored = converted(empty(), weights_from=folder, keep_original=keep)
    assert torch.equal(logits(stored), logits(converted(llama())))
    assert stored.lm_head.weight is stored.model.embed_tokens.weight
    assert stored.model.layers[0].mlp.up_proj.weight.is_meta is not keep


def test_a_file_or_a_list_of_files_may_be_named(folder: Path) -> None:
    single = folder / "model.safetensors"
    file = single if single.exists() else folder / "model.safetensors.index.json"
    assert torch.equal(logits(converted(empty(), weights_from=str(file))), logits(converted(llama())))


def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    model = empty()
    converted(model, weights_from=tmp_path)
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [tuple(int(end, 16) for end in line.split("-")) for line in maps]
    for name, parameter in model.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in ranges), f"{name} is not in the mapped file"


def test_transformers_maps_files_too(tmp_path: Path) -> None:
    llama(torch.bfloat16).save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    given_up = converted(model, keep_original=False, half_cells=True)
    assert torch.isfinite(logits(given_up)).all()


def one_shape(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(31)


def one_type(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"] = weights["model.norm.weight"].half()


def one_more(weights: dict[str, Tensor]) -> None:
    weights["model.layers.2.mlp.up_proj.weight"] = torch.ones(2, 2)


def one_less(weights: dict[str, Tensor]) -> None:
    del weights["model.layers.1.mlp.up_proj.weight"]


def codes(weights: dict[str, Tensor]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weights |= {name: weights[name].to(torch.int8), f"{name}_scale": torch.ones(1)}


def tiny_numbers(weights: dict[str, Tensor]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name].to(torch.float8_e4m3fn)


def other_type(weights: dict[str, Tensor]) -> None:
    weights |= {name: t.bfloat16() for name, t in weights.items()}


def untied(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0)


def one_nan(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_shape, r"model\.safetensors: model\.norm\.weight has shape \[31\], but \[32\] in the model"),
        (one_type, r"model\.norm\.weight is float16, but float32 in the model; .*\.to\(torch\.float16\)"),
        (one_more, r"has no place for \(model\.layers\.2\.mlp\.up_proj\.weight\)"),
        (one_less, r"holds no model\.layers\.1\.mlp\.up_proj\.weight"),
        (codes, r"up_proj\.weight is stored as I8, a code of a quantized model .*; take a checkpoint with floating"),
        (tiny_numbers, r"up_proj\.weight is stored as F8_E4M3, a code of a quantized model"),
        (
            other_type,
            r"is bfloat16, but float32 in the model; build the model in the type .*model\.to\(torch\.bfloat16\)",
        ),
        (
            untied,
            r"(lm_head|model\.embed_tokens)\.weight are one tensor in the model \(tied weights\), but have different",
        ),
        (one_nan, r"model\.norm\.weight holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit(spoil: Callable[[dict[str, Tensor]], None], message: str, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    spoil(weights)
    save_file(weights, tmp_path / "model.safetensors")
    refused(lambda: converted(empty(), weights_from=tmp_path), message)


def filled(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.is_meta]


def test_a_tensor_that_is_stored_twice_with_the_same_values(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    stored = converted(empty(), weights_from=tmp_path)
    assert torch.equal(logits(stored), logits(converted(llama())))
    assert stored.lm_head.weight is stored.model.embed_tokens.weight


@pytest.mark.parametrize("keep", [True, False])
def test_a_conversion_that_fails_leaves_the_model_empty(tmp_path: Path, keep: bool) -> None:
    llama().save_pretrained(tmp_path)
    model = empty()
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    refused(lambda: converted(model, weights_from=tmp_path, rules={"nothing": None}, keep_original=keep), "nothing")
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    assert not filled(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    stored = converted(model, weights_from=tmp_path, keep_original=keep)
    assert torch.equal(logits(stored), logits(converted(llama())))


class ReadsWeight(nn.Module):
    """A model that reads the weight of its layer by itself, and holds no other parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) * self.layer.weight.norm()
        return y


def test_weights_that_were_given_up_in_vain_come_from_the_file_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    save_file(ReadsWeight().state_dict(), tmp_path / "own.safetensors")
    with accelerate.init_empty_weights():
        model = ReadsWeight().eval()
    options: dict[str, Any] = {"sample": x, "level": "noise", "weights_from": tmp_path}
    refused(lambda: of.convert(model, PER_VALUE, keep_original=False, **options), "outside of its linear layers")
    assert not filled(model)
    stored = of.convert(model, PER_VALUE, **options)
    with torch.no_grad(), of.samples(range(4)):
        assert torch.isfinite(stored(x)).all()
        assert torch.isfinite(model(x)).all()


def test_values_of_the_model_are_never_replaced(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    model = empty()
    model.model.norm.weight = nn.Parameter(torch.full((32,), 3.0))
    refused(
        lambda: converted(model, weights_from=tmp_path),
        r"^convert: weights_from: model\.norm\.weight of the model already",
    )
    assert filled(model) == ["model.norm.weight"]
    assert torch.equal(model.model.norm.weight, torch.full((32,), 3.0))
    given_up = llama()
    converted(given_up, keep_original=False)
    refused(lambda: converted(given_up, weights_from=tmp_path), "already holds values.* build all of the model")


def refused(what: Callable[[], object], message: str) -> None:
    with pytest.raises(of.BadInput, match=message) as error:
        what()
    assert "\n" not in str(error.value)


def test_places_that_hold_no_weights(tmp_path: Path) -> None:
    refused(lambda: converted(empty(), weights_from=tmp_path / "none"), "there is no such file or folder")
    refused(lambda: converted(empty(), weights_from=tmp_path), r"holds no \.safetensors")
    refused(lambda: converted(empty(), weights_from=3), "weights_from")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    refused(lambda: converted(empty(), weights_from=tmp_path), r"names the file b\.safetensors, which is not there")
    (tmp_path / "model.safetensors").write_bytes(b"damaged!" * 8)
    refused(lambda: converted(empty(), weights_from=tmp_path), r"model\.safetensors: is damaged or cut off")
    (tmp_path / "model.bin").write_bytes(b"x")
    refused(lambda: converted(empty(), weights_from=tmp_path / "model.bin"), r"is no \.safetensors")


def test_places_that_are_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama().save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    for nothing in ("", "  "):
        refused(lambda place=nothing: converted(empty(), weights_from=place), "weights_from = '': names no folder")
    assert torch.equal(logits(converted(empty(), weights_from=".")), logits(converted(llama())))
    refused(lambda: converted(empty(), weights_from="/dev/null"), "/dev/null: is neither a folder nor a regular file")
    (tmp_path / "loop").symlink_to("loop")
    refused(lambda: converted(empty(), weights_from="loop"), "loop: is a link that leads nowhere")
    for odd in ("n" * 5000, "a\0b"):
        refused(lambda place=odd: converted(empty(), weights_from=place), "no such file or folder")


def test_entries_that_are_no_files_of_weights(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").symlink_to("a.safetensors")
    refused(lambda: converted(empty(), weights_from=tmp_path), r"a\.safetensors: is a broken link")
    (tmp_path / "a.safetensors").unlink()
    (tmp_path / "a.safetensors").mkdir()
    refused(lambda: converted(empty(), weights_from=tmp_path), r"a\.safetensors: is a folder")
    (tmp_path / "b.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(lambda: converted(empty(), weights_from=tmp_path / "b.safetensors"), "is a Git LFS pointer")
    (tmp_path / "c.safetensors").touch()
    refused(lambda: converted(empty(), weights_from=tmp_path / "c.safetensors"), r"c\.safetensors: is empty")


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama().save_pretrained(tmp_path)

    def denied(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    refused(lambda: converted(empty(), weights_from=tmp_path), r"cannot be read \(Permission denied\); change its perm")


def test_lists_of_files_that_are_damaged(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first, *others = sorted(set(content["weight_map"].values()))
    twice = load_file(tmp_path / others[0]) | load_file(tmp_path / first)
    save_file(twice, tmp_path / first)
    refused(lambda: converted(empty(), weights_from=tmp_path), "both hold")
    (tmp_path / first).unlink()
    refused(lambda: converted(empty(), weights_from=tmp_path), f"names the file {first}, which is not there")
    for damaged in ("{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'):
        index.write_text(damaged)
        refused(lambda: converted(empty(), weights_from=tmp_path), r"index\.json: (is not JSON|weight_map)")


def test_a_file_does_not_fill_an_empty_model(tmp_path: Path) -> None:
    of.save(converted(llama()), tmp_path / "converted.safetensors")
    refused(
        lambda: of.restore(empty(), tmp_path / "converted.safetensors"),
        r"^restore: model\.embed_tokens\.weight of the model is on the meta device .*; build the model in memory",
    )


def test_two_files_with_one_weight(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"weight": torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
    refused(lambda: converted(empty(), weights_from=tmp_path), "both hold weight")


def test_a_model_with_values_needs_no_others(tmp_path: Path) -> None:
    refused(lambda: converted(llama(), weights_from=tmp_path), "holds weights already")


def test_a_model_without_values_is_told_of_the_argument() -> None:
    refused(lambda: converted(empty()), "weights_from=FOLDER")


def test_buffers_that_no_file_holds(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    with torch.device("meta"):
        model = llama()
    refused(lambda: converted(model, weights_from=tmp_path), "buffer model.rotary_emb.inv_freq is on the meta device")


class Normalized(nn.Module):
    """A layer behind a normalization with stored buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(x))
        return y


def test_stored_buffers_come_from_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Normalized(), torch.randn(4, 8)
    model(5 + x)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    with accelerate.init_empty_weights():
        without = Normalized()
    stored = of.convert(without.eval(), PER_VALUE, sample=x, level="noise", weights_from=tmp_path)
    with torch.no_grad(), of.samples(range(4)):
        assert torch.equal(stored(x), of.convert(model.eval(), PER_VALUE, sample=x, level="noise")(x))


def test_a_device_map_of_one_device_works(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert torch.equal(logits(converted(model)), logits(converted(llama())))


def test_weights_that_hooks_move_are_refused(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    places = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    places["model.rotary_emb"] = "cpu"
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(tmp_path, device_map=places, offload_folder=tmp_path / "offloaded")
    refused(lambda: converted(model), r"has hooks of accelerate, .*\(device_map: cpu, disk\)")


def test_hooks_around_weights_in_memory_are_refused() -> None:
    model = accelerate.dispatch_model(llama(), device_map={"": "cpu"}, force_hooks=True)
    refused(lambda: converted(model), r"has hooks of accelerate, .*accelerate\.dispatch_model")


def test_accelerate_may_move_the_weights_of_a_converted_model() -> None:
    expected = logits(converted(llama()))
    dispatched = accelerate.dispatch_model(converted(llama()), device_map={"": "cpu"}, force_hooks=True)
    offloaded = accelerate.cpu_offload(converted(llama()))
    assert all(parameter.is_meta for parameter in offloaded.parameters())
    for model in (dispatched, offloaded, offloaded):
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_told_with_their_file(tmp_path: Path, value: float) -> None:
    model, name = llama(), "model.layers.1.mlp.up_proj.weight"
    with torch.no_grad():
        model.get_parameter(name)[3, 2] = value
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    places = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    with pytest.raises(of.BadInput, match=rf"{places[name]}: {name} holds NaN or infinity; download the file again"):
        converted(empty(), weights_from=tmp_path)


def test_a_refused_save_writes_nothing(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "weights")
    model = empty()
    on_crossbars = converted(model, weights_from=tmp_path / "weights", keep_original=False)
    for each in (on_crossbars, on_crossbars.model, model, copy.deepcopy(on_crossbars)):
        with pytest.raises(of.BadInput, match=r"its weights were given up \(keep_original=False\)"):
            each.save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()
    model.save_pretrained(tmp_path / "saved", state_dict=llama().state_dict())
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == llama().state_dict().keys() - {
        "lm_head.weight"
    }
