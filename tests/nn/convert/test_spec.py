"""A configuration of `convert` is one object that goes through JSON, and does what the keywords do."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer.errors import BadInput

HARDWARE = of.load("clipformer_tcad_2024")
X = torch.linspace(-1, 1, 40).reshape(5, 8)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def test_a_configuration_converts_as_its_keywords_do() -> None:
    keywords = {"level": "noise", "seed": 3, "chip": 2, "rules": {"2": None}}
    config = of.ConvertConfig(hardware=HARDWARE, **keywords)
    with torch.no_grad():
        one = of.convert(model(), config, sample=X)(X)
        other = of.convert(model(), HARDWARE, sample=X, **keywords)(X)
    assert torch.equal(one, other)


def test_a_configuration_comes_back_from_json() -> None:
    config = of.ConvertConfig(hardware=HARDWARE, clip=of.KVClip(), rules={"*.attn": None, "*": "projection"}, seed=7)
    read = of.ConvertConfig.read(json.loads(json.dumps(config.canonical())))
    assert read.canonical() == config.canonical()
    assert [pattern for pattern, _ in read.rules] == ["*.attn", "*"], "the order of rules decides"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "hardware: is missing"),
        ({"level": "arry"}, "level"),
        ({"seed": -1}, "seed = -1"),
        ({"sede": 1}, "sede"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line(table: dict[str, object], said: str) -> None:
    whole = table and {"hardware": HARDWARE.canonical(), **table}
    with pytest.raises(BadInput, match=said) as caught:
        of.ConvertConfig.read(whole)
    assert "\n" not in str(caught.value)


def test_keywords_beside_a_configuration_are_refused() -> None:
    known = "clip, weights, level, kernels, rules, seed, chip and half_cells"
    with pytest.raises(BadInput, match=f"a ConvertConfig holds {known}"):
        of.convert(model(), of.ConvertConfig(hardware=HARDWARE), sample=X, level="noise")


def test_more_batches_widen_the_ranges_of_the_sample() -> None:
    converted = of.convert(model(), HARDWARE, sample=X)
    with torch.no_grad():
        narrow = (converted(3 * X) - model()(3 * X)).norm()
        of.calibrate_ranges(converted, (batch for batch in (2 * X, 3 * X)))
        assert (converted(3 * X) - model()(3 * X)).norm() < 0.2 * narrow
    with pytest.raises(BadInput, match="a batch is empty"):
        of.calibrate_ranges(converted, [X[:0]])
    for none in ([], iter([])):
        with pytest.raises(of.BadInput, match="calibrate_ranges: batches yields no batch; give at least one"):
            of.calibrate_ranges(converted, none)
    with pytest.raises(BadInput, match="of type str"):
        of.calibrate_ranges(converted, ["text"])


def test_the_model_comes_first_when_saving_and_when_restoring() -> None:
    with pytest.raises(BadInput, match=r"the model comes first: restore\(model, file\)"):
        of.restore("model.safetensors", model())  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (None, "batches is None; give a tensor, a mapping or a tuple of arguments as one batch, or a list"),
        ([9 * X, X * float("nan")], "holds NaN or infinity"),
        ([9 * X, X[:, :3]], "the model fails on a batch"),
        ([9 * X, X.double()], "the model fails on a batch"),
    ],
)
def test_bad_batches_are_one_line_and_leave_the_model_as_it_was(batches: object, said: str) -> None:
    converted = of.convert(model(), HARDWARE, sample=X)
    with torch.no_grad():
        before = converted(3 * X)
        with pytest.raises(BadInput, match=said) as caught:
            of.calibrate_ranges(converted, batches)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert torch.equal(converted(3 * X), before)
