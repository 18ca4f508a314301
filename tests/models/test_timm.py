"""Models of timm, with and without a torchvision that works."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model, model_digest
from ohmformer.models.preprocessing import preparation
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


def test_what_was_loaded_of_torchvision_is_loaded_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
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
