"""Models of timm, with and without a torchvision that works."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model, model_digest
from ohmformer.models.preprocessing import preparation
from ohmformer.models.timm import timm_package
from ohmformer.models.torchvision_stub import FrozenBatchNorm2d, stand_in, works

NAME = "timm:test_vit"

has_timm = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("timm") is None, reason="timm is not installed"
)


@has_timm
def test_a_model_with_random_weights_and_its_preparation() -> None:
    model = load_model(NAME, weights="random", seed=3)
    known = preparation(model)
    assert known.images is not None
    assert known.images.crop is not None
    assert known.classes == 1000
    height, width = known.images.crop
    assert model(torch.zeros(1, 3, height, width)).shape == (1, 1000)
    assert model_digest(load_model(NAME, weights="random", seed=3)) == model_digest(model)
    assert "random (seed 3)" in known.notes[0]


@has_timm
def test_an_encoder_gives_features() -> None:
    model = load_model(NAME, weights="random", head="encoder")
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, model.num_features)


@has_timm
@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("timm:test_vitt", {}, "timm has no such model; did you mean 'test_vit"),
        (NAME, {"head": "causal-lm"}, "models of timm are for images"),
    ],
)
def test_what_timm_does_not_have_is_one_line(source: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_model(source, **options)


@has_timm
def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"neither in the local cache nor reachable.*weights = 'random'") as caught:
        load_model(NAME)
    assert "\n" not in str(caught.value)


def folder_of_timm(
    folder: Path,
    change: Callable[[dict[str, torch.Tensor]], Any] = lambda weights: None,
    saved_by_torch: bool = False,
    **config: Any,
) -> Path:
    """A model of timm of ten classes, saved with changed weights and changed settings."""
    timm = timm_package()
    model = timm.create_model("test_vit", num_classes=10)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights = change(weights) or weights
    folder.mkdir()
    names = ("input_size", "fixed_input_size", "mean", "std", "interpolation", "crop_pct", "first_conv", "classifier")
    settings = {name: model.pretrained_cfg[name] for name in names}
    content = {"architecture": "test_vit", "num_classes": 10, "pretrained_cfg": {**settings, "num_classes": 10}}
    (folder / "config.json").write_text(json.dumps({**content, **config}))
    if saved_by_torch:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    return folder


@has_timm
def test_a_folder_gives_the_model_that_was_saved(tmp_path: Path) -> None:
    folder = folder_of_timm(tmp_path / "t")
    model = load_model(f"timm:local-dir:{folder}")
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert preparation(model).classes == 10
    encoder = load_model(f"timm:local-dir:{folder}", head="encoder")
    assert all(torch.equal(value, saved[name]) for name, value in encoder.state_dict().items())
    assert load_model(f"timm:local-dir:{folder}", weights="random") is not None
    nested = folder_of_timm(tmp_path / "n", lambda weights: {"state_dict": weights}, saved_by_torch=True)
    assert load_model(f"timm:local-dir:{nested}") is not None


QKV = "blocks.0.attn.qkv.weight"


@has_timm
@pytest.mark.parametrize("saved_by_torch", [False, True])
@pytest.mark.parametrize("head", ["task", "encoder"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.update({"blocks.9.weight": torch.zeros(3)}), r"blocks\.9\.weight.*take the config\.json"),
        (lambda w: {name: value for name, value in w.items() if name != QKV}, rf"{QKV}.*take the config\.json"),
        (lambda w: w.update({QKV: torch.zeros(3, 3)}), rf"size mismatch for {QKV}.*take the config\.json"),
        (lambda w: w.update({QKV: w[QKV].to(torch.int8)}), rf"{QKV} is stored as (I8|int8)"),
        (lambda w: {f"model.{name}": value for name, value in w.items()}, r"cls_token.*take the config\.json"),
        (lambda w: {"other": torch.zeros(2)}, r"take the config\.json"),
    ],
)
@pytest.mark.slow
def test_weights_that_do_not_fit_are_one_line(
    tmp_path: Path, change: Callable[..., Any], said: str, head: str, saved_by_torch: bool
) -> None:
    folder = folder_of_timm(tmp_path / "t", change, saved_by_torch)
    with pytest.raises(BadInput, match=said) as caught:
        load_model(f"timm:local-dir:{folder}", head=head)
    assert "\n" not in str(caught.value)


@has_timm
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_classes": 7}, "size mismatch for head.weight"),
        ({"model_args": {"num_classes": 7}}, "no trained weights for head.weight .*has 7 classes, the weights 10"),
        ({"model_args": {"depth": 1}}, r"blocks\.1"),
        ({"model_args": {"none": 1}}, "unexpected keyword argument 'none'"),
        ({"model_args": None}, "take the config.json"),
        ({"architecture": "nope"}, r"config\.json: architecture = 'nope': must be a model of timm"),
        ({"architecture": None}, r"architecture = None: must be .*hf:FOLDER"),
        ({"pretrained_cfg": {"crop_pct": "x"}}, r"image preparation cannot be used \(TypeError"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, r"model\.source = .*std above 0"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_one_line(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    folder = folder_of_timm(tmp_path / "t", **config)
    with pytest.raises(BadInput, match=said) as caught:
        load_model(f"timm:local-dir:{folder}")
    assert "\n" not in str(caught.value)


@has_timm
def test_places_that_hold_no_model_are_one_line(tmp_path: Path) -> None:
    folder = folder_of_timm(tmp_path / "t")
    file = folder / "model.safetensors"
    with pytest.raises(BadInput, match=r"looks like a path; write timm:local-dir:FOLDER"):
        load_model(f"timm:{folder}")
    with pytest.raises(BadInput, match="there is no such folder"):
        load_model(f"timm:local-dir:{file}")
    if not works():
        pytest.importorskip("transformers")
        with pytest.raises(BadInput, match=r"is a model of timm; write model\.source = 'timm:local-dir:FOLDER'"):
            load_model(f"hf:{folder}")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"t/model\.safetensors: is cut off"):
        load_model(f"timm:local-dir:{folder}")
    file.unlink()
    with pytest.raises(BadInput, match=r"t: holds no weights"):
        load_model(f"timm:local-dir:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"t has no config\.json"):
        load_model(f"timm:local-dir:{folder}")


@has_timm
def test_loading_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = torch.nn.Module.load_state_dict
    with pytest.raises(BadInput):
        load_model(f"timm:local-dir:{folder_of_timm(tmp_path / 't', num_classes=7)}")
    assert torch.nn.Module.load_state_dict is before


CODE = """
import sys, torch
import ohmformer as of
model = of.load_model("timm:test_vit", weights="random")
print(tuple(model(torch.zeros(1, 3, 160, 160)).shape), sorted(n for n in sys.modules if n.startswith("torchvision")))
"""


@has_timm
@pytest.mark.parametrize(
    "broken",
    ["raise RuntimeError('operator torchvision::nms does not exist')", "raise ModuleNotFoundError('torchvision')"],
)
@pytest.mark.slow
def test_a_broken_or_missing_torchvision_does_not_matter(tmp_path: Path, broken: str) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    paths = [str(tmp_path), *sys.path]
    code = f"import sys; sys.path[:] = {paths!r}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1000) []", "the stand-in stayed behind"


@has_timm
def test_a_torchvision_that_works_is_left_alone(tmp_path: Path) -> None:
    """Here one that counts who asks for it; it is found again after the import of timm has used it."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("real = True")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from ohmformer.models.torchvision_stub import stand_in
with stand_in():
    import torchvision
    assert torchvision.real
assert "torchvision" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_was_loaded_of_torchvision_is_loaded_afterward(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, part = types.ModuleType("torchvision"), types.ModuleType("torchvision.mine")
    monkeypatch.setitem(sys.modules, "torchvision", mine)
    monkeypatch.setitem(sys.modules, "torchvision.mine", part)
    monkeypatch.setattr("ohmformer.models.torchvision_stub.works", lambda: False)
    with stand_in():
        assert sys.modules["torchvision"] is not mine
        assert "torchvision.mine" not in sys.modules
        with stand_in():
            pass
        assert sys.modules["torchvision"] is not mine
    with pytest.raises(ValueError, match="within"), stand_in():
        raise ValueError("within")
    found = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    assert found == {"torchvision": mine, "torchvision.mine": part}


def test_frozen_normalization_is_that_of_evaluation_mode() -> None:
    frozen, reference = FrozenBatchNorm2d(3), torch.nn.BatchNorm2d(3).eval()
    for name, value in reference.state_dict().items():
        if name != "num_batches_tracked":
            value.copy_(torch.rand(3) + 0.5)
            frozen.state_dict()[name].copy_(value)
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(frozen(x), reference(x), atol=1e-6)
    assert isinstance(works(), bool)
