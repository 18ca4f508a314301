"""Converted models to files and back, and back to digital ones."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput, KVClip
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import Decoder, Encoder, vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), of.samples(range(len(x))):
        y = model(x)
    assert isinstance(y, Tensor)
    return y


@pytest.mark.parametrize("adc", ["ideal", 6])
def test_a_restored_model_gives_the_same_to_the_bit(tmp_path: Path, adc: object) -> None:
    hardware = of.replace(HARDWARE, "attention.array.adc.bits", adc)
    if adc == 6:
        hardware = of.replace(hardware, "attention.array.adc.range", {"kind": "calibrated"})
    rules = {"head": None, "blocks.0.attn.K": of.Rule(clip=(KVClip(alpha=1.0, beta=0.5), "none", "none"))}
    converted = of.convert(vit(), hardware, sample=IMAGES, rules=rules, clip=KVClip(), seed=3, chip=5)
    file = tmp_path / "model.safetensors"
    of.save(converted, file)
    other = vit(seed=9)
    restored = of.restore(other, file)
    assert torch.equal(outputs(restored, IMAGES), outputs(converted, IMAGES))
    assert of.capture_table(restored) == of.capture_table(converted)
    assert crossbars(restored).hardware == hardware
    of.set_clip(restored, None)
    of.set_clip(converted, None)
    assert torch.equal(outputs(restored, IMAGES), outputs(converted, IMAGES))


@pytest.mark.parametrize("remedy", ["clip", "auto"])
@pytest.mark.parametrize(("make", "x"), [(vit, IMAGES), (lambda: Decoder().eval(), TOKENS)])
@pytest.mark.slow
def test_what_was_calibrated_comes_back(tmp_path: Path, remedy: Any, make: Callable[[], nn.Module], x: Tensor) -> None:
    noisy = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 7.0)
    converted = of.convert(make(), noisy, sample=x)
    of.calibrate(converted, x, remedy=remedy)
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(make(), tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, x), outputs(converted, x))
    quiet = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0)
    other = of.restore(make(), tmp_path / "model.safetensors", hardware=quiet)
    assert torch.equal(outputs(other, x), outputs(of.convert(make(), quiet, sample=x), x))


def test_weights_stand_under_their_own_names(tmp_path: Path) -> None:
    model = vit()
    of.save(of.convert(model, HARDWARE, sample=IMAGES), tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(stored[name], value)


def test_cached_ranges_come_back(tmp_path: Path) -> None:
    converted = of.convert(Decoder().eval(), HARDWARE, sample=TOKENS, level="noise")
    of.save(converted, tmp_path / "model.safetensors")
    restored = of.restore(Decoder(seed=5).eval(), tmp_path / "model.safetensors")
    assert torch.equal(outputs(restored, TOKENS), outputs(converted, TOKENS))


def test_other_hardware_only_if_it_is_asked_for(tmp_path: Path) -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    of.save(converted, tmp_path / "model.safetensors")
    quiet = of.replace(HARDWARE, "attention.array.cell.write_noise.gamma", 0.0)
    restored = of.restore(vit(seed=2), tmp_path / "model.safetensors", hardware=quiet)
    assert torch.equal(outputs(restored, IMAGES), outputs(of.convert(vit(), quiet, sample=IMAGES), IMAGES))


def test_a_file_that_does_not_fit_gets_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    of.save(of.convert(vit(), HARDWARE, sample=IMAGES), file)
    with pytest.raises(BadInput, match=r"does not fit Encoder, the first difference is"):
        of.restore(Encoder(), file)
    with pytest.raises(BadInput, match="takes a digital model"):
        of.restore(of.convert(vit(), HARDWARE, sample=IMAGES), file)
    with pytest.raises(BadInput, match="does not exist"):
        of.restore(vit(), tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(BadInput, match="is not a converted model"):
        of.restore(vit(), tmp_path / "text.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(BadInput, match="is not a converted model"):
        of.restore(vit(), tmp_path / "plain.safetensors")
    with pytest.raises(BadInput, match="cannot be written"):
        of.save(of.convert(vit(), HARDWARE, sample=IMAGES), tmp_path / "no" / "folder" / "model.safetensors")
    with pytest.raises(BadInput, match="not on crossbars"):
        of.save(vit(), file)


@pytest.mark.parametrize(("make", "x"), [(vit, IMAGES), (Encoder, torch.randn(3, 5, 24)), (Decoder, TOKENS)])
def test_reverting_gives_the_original(make: type[nn.Module], x: Tensor) -> None:
    model = make().eval()
    digital = of.revert(of.convert(model, HARDWARE, sample=x))
    assert [(name, type(m)) for name, m in digital.named_modules()] == [(n, type(m)) for n, m in model.named_modules()]
    assert all(a is b for a, b in zip(digital.parameters(), model.parameters(), strict=True))
    for ours, theirs in zip(digital.modules(), model.modules(), strict=True):
        assert set(vars(ours)) == set(vars(theirs))
        for name, value in vars(theirs).items():
            if isinstance(value, (bool, int, float, str)):
                assert vars(ours)[name] == value, name
        assert not ours._forward_pre_hooks
        assert not ours._forward_hooks
    with torch.no_grad():
        assert torch.equal(digital(x), model(x))
    again = of.convert(digital, HARDWARE, sample=x)
    assert torch.equal(outputs(again, x), outputs(of.convert(model, HARDWARE, sample=x), x))


def test_reverting_leaves_the_converted_model_as_it_is() -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES)
    before = outputs(converted, IMAGES)
    of.revert(converted)
    assert torch.equal(outputs(converted, IMAGES), before)
    with pytest.raises(BadInput, match="not on crossbars"):
        of.revert(vit())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_converted_models_of_their_own(copied: object) -> None:
    converted = of.convert(Decoder().eval(), HARDWARE, sample=TOKENS)
    other = copied(converted)
    assert torch.equal(outputs(other, TOKENS), outputs(converted, TOKENS))
    of.set_chip(other, 4)
    assert not torch.equal(outputs(other, TOKENS), outputs(converted, TOKENS))


ENTRIES = ["remedies", "hardware", "rules", "clip", "level", "rounded", "calibration", "operands", "tied", "sample"]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("value", ["gone", 5, "x", [1], [["a"]], {"tensor": "a"}])
def test_damaged_files_get_one_line(tmp_path: Path, entry: str, value: object) -> None:
    file = tmp_path / "model.safetensors"
    of.save(of.convert(vit(), HARDWARE, sample=IMAGES), file)
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["ohmformer"])
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    about[entry] = value
    if value == "gone":
        del about[entry]
    save_file(tensors, file, {"ohmformer": json.dumps(about)})
    with pytest.raises(BadInput):
        of.restore(vit(), file)


@pytest.mark.parametrize("change", [lambda t: torch.ones(7), lambda t: t * float("nan"), None])
def test_damaged_ranges_are_refused(tmp_path: Path, change: Callable[[Tensor], Tensor] | None) -> None:
    file = tmp_path / "model.safetensors"
    of.save(of.convert(vit(), HARDWARE, sample=IMAGES), file)
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    name = next(name for name in tensors if name.endswith("/x_range"))
    range_ = tensors.pop(name)
    save_file(tensors if change is None else {**tensors, name: change(range_)}, file, metadata)
    with pytest.raises(BadInput, match="is damaged"):
        of.restore(vit(), file)


def test_weights_of_another_type_are_not_rounded_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    of.save(of.convert(vit(), HARDWARE, sample=IMAGES), file)
    with pytest.raises(BadInput, match="float32 in the file"):
        of.restore(vit().half(), file)


def test_a_sample_may_hold_a_tensor_twice(tmp_path: Path) -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    model = of.convert(nn.MultiheadAttention(8, 2).eval(), HARDWARE, sample=(x, x, x))
    of.save(model, tmp_path / "model.safetensors")
    restored = of.restore(nn.MultiheadAttention(8, 2).eval(), tmp_path / "model.safetensors")
    with torch.no_grad(), of.samples(range(5)):
        assert torch.equal(restored(x, x, x)[0], model(x, x, x)[0])
