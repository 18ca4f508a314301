"""Models by name, and a digest that changes with whatever the model computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.models.load import load_model, model_digest

SHAPE = {"size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "classes": 3}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's library folder with one bundled model, `bundled:my-vit`."""
    folder = tmp_path / "library" / "bundled"
    folder.mkdir(parents=True)
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(folder.parent))
    weights = VisionTransformer(**SHAPE).state_dict()
    save_file(weights, folder / "my_vit.safetensors", metadata={"architecture": json.dumps(SHAPE)})
    return folder


def test_a_bundled_file_holds_architecture_and_weights(library: Path) -> None:
    model = load_model("bundled:my-vit")
    assert not model.training
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    again = load_model("bundled:my-vit")
    assert model_digest(again) == model_digest(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_shipped_model_loads() -> None:
    assert load_model("bundled:fashion-vit")(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_a_damaged_file_is_one_line(library: Path) -> None:
    (library / "my_vit.safetensors").write_bytes(b"not a model")
    (library / "bare.safetensors").write_bytes((library / "my_vit.safetensors").read_bytes())
    save_file({"x": torch.zeros(1)}, library / "bare.safetensors")
    save_file({"x": torch.zeros(1)}, library / "other.safetensors", metadata={"architecture": json.dumps(SHAPE)})
    for name in ("my-vit", "bare", "other"):
        with pytest.raises(BadInput, match="is not a bundled model"):
            load_model(f"bundled:{name}")


def linear() -> nn.Module:
    return nn.Linear(2, 2)


def broken() -> nn.Module:
    raise RuntimeError("no weights here")


def leaves() -> nn.Module:
    sys.exit("no license")


def no_model() -> int:
    return 3


def not_finite() -> nn.Module:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, float("nan"))
    return model


HERE = f"python:{__name__}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bundled:nope", "known: bundled:fashion-vit"),
        ("bundled:fashion-vitt", "did you mean 'bundled:fashion-vit'"),
        ("python:", "write python:MODULE:FUNCTION"),
        ("python:json", "write python:MODULE:FUNCTION"),
        ("python:no_such_module:f", "importing no_such_module fails"),
        ("python:json:nope", "has no function 'nope'"),
        (f"{HERE}:broken", "RuntimeError: no weights here"),
        (f"{HERE}:leaves", "fails (SystemExit: no license)"),
        (f"{HERE}:no_model", "returns int; return a torch.nn.modules.module.Module"),
        (f"{HERE}:not_finite", "weight holds NaN"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(source: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_model(source)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"model.source = {source!r}")


def test_a_function_of_the_user_is_called() -> None:
    assert isinstance(load_model(f"{HERE}:linear"), nn.Linear)


def test_a_module_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_of_a_user.py").write_text("import torch\nmake = torch.nn.Identity\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert isinstance(load_model("python:model_of_a_user:make"), nn.Identity)


def test_the_digest_sees_weights_names_types_shapes_and_settings() -> None:
    def digest(change: int) -> str:
        torch.manual_seed(0)
        model: nn.Sequential = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3, eps=1e-4 if change == 1 else 1e-5))
        if change == 2:
            model = nn.Sequential(model[1], model[0])
        if change == 3:
            model[0].weight.data[0, 0] = torch.nextafter(model[0].weight.data[0, 0], torch.tensor(9.0))
        if change == 4:
            model[1].register_buffer("extra", torch.zeros(1))
        if change == 5:
            model[0].weight.data = model[0].weight.data.reshape(2, 3)
        return model_digest(model.double() if change == 6 else model)

    found = [digest(change) for change in range(7)]
    assert len(set(found)) == 7
    assert found == [digest(change) for change in range(7)]


class WithExtraState(nn.Linear):
    """A layer whose state holds more than tensors, as those of quantization packages do."""

    def __init__(self, scale: object) -> None:
        torch.manual_seed(0)
        super().__init__(2, 2)
        self.scale = scale

    def get_extra_state(self) -> object:
        return {"scale": self.scale, "kind": torch.qint8}

    def set_extra_state(self, state: object) -> None:
        pass


def extra_state() -> nn.Module:
    return WithExtraState(0.5)


@pytest.mark.filterwarnings("ignore")
def test_a_state_may_hold_more_than_tensors() -> None:
    assert isinstance(load_model(f"{HERE}:extra_state"), WithExtraState)
    scales = [0.5, 0.25, torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([0.0, 1.0]).to_sparse()]
    scales.append(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    found = [model_digest(WithExtraState(scale)) for scale in scales]
    assert len(set(found)) == len(scales)
    assert found == [model_digest(WithExtraState(scale)) for scale in scales]


def test_the_digest_sees_the_code_of_a_users_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for name, factor in (("first_model", 1), ("second_model", 2), ("third_model", 1)):
        code = f"import torch\nclass Scale(torch.nn.Module):\n    def forward(self, x):\n        return {factor} * x\n"
        (tmp_path / f"{name}.py").write_text(code)
        found.append(model_digest(load_model(f"python:{name}:Scale")))
    assert found[0] == found[2] != found[1]


def test_a_module_that_ends_the_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_that_leaves.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match=r"importing module_that_leaves fails \(SystemExit: 3\)"):
        load_model("python:module_that_leaves:make")
