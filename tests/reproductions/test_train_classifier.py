"""Fine-tuning a classifier of photographs: what it saves, what it leaves alone, and that a stop changes nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ohmformer.models.load import load_model
from ohmformer.tasks.load import load_task
from ohmformer.tasks.splits import in_hash_order
from tests.reproductions.starts import STEPS, record, refused, start, stopped
from tests.tasks import tiny


@pytest.fixture(scope="module")
def trained(script: ModuleType, data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert start(script, data, weights, out) == 0
    return out


def test_a_study_finds_the_model_and_measures_the_recorded_accuracy(trained: Path, data: Path) -> None:
    model = load_model(f"hf:{trained / 'model'}")
    task = load_task(f"imagefolder:{data}", model=model)
    assert task.inputs[:12].shape == (12, 3, 16, 16)
    with torch.inference_mode():
        hits = (model(task.inputs[:12]).logits.argmax(1) == task.labels).double()
    found = record(trained)
    assert found["test"]["accuracy"] == hits.mean().item()
    assert found["test"]["ci95"][0] <= hits.mean().item() <= found["test"]["ci95"][1]
    assert found["images"] == {"training": 18, "held_out": 6, "test": 12}
    assert sorted(path.name for path in trained.iterdir()) == ["model", "result.json"]


def test_what_studies_calibrate_on_was_never_learned_from(script: ModuleType, trained: Path, data: Path) -> None:
    found = script.photographs.find(data, 6)
    assert not set(found.training) & set(found.held_out)
    assert len(found.training) + len(found.held_out) == 24
    model = load_model(f"hf:{trained / 'model'}")
    for count in (1, 4, 6):
        task = load_task(f"imagefolder:{data}", model=model, calibration=count)
        assert list(task.calibration.files) == found.held_out[:count]
        assert all(file.is_relative_to(data / "test") for file in task.inputs.files)


@pytest.mark.parametrize("stop", [1, 3, 5, 8], ids="after {} steps".format)
def test_a_stopped_run_goes_on_to_the_same_bits(
    script: ModuleType, trained: Path, data: Path, weights: Path, tmp_path: Path, stop: int
) -> None:
    stopped(script, stop, data, weights, tmp_path)
    # As a process that is killed while it writes leaves it.
    (tmp_path / "checkpoint.pt.part").write_bytes(b"half")
    assert start(script, data, weights, tmp_path) == 0
    again, whole = (load_file(out / "model" / "model.safetensors") for out in (tmp_path, trained))
    assert all(torch.equal(again[name], whole[name]) for name in again.keys() | whole.keys())
    assert record(tmp_path) == record(trained)


def test_a_resumed_run_repeats_no_finished_step(
    script: ModuleType, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(training: Any, *args: Any) -> float:
        calls.append(training.step)
        if len(calls) == 8:
            raise KeyboardInterrupt
        loss: float = step(training, *args)
        return loss

    step = script.gradient_step
    monkeypatch.setattr(script, "gradient_step", counted)
    assert start(script, data, weights, tmp_path) == 130
    assert start(script, data, weights, tmp_path) == 0
    assert calls == [*range(8), *range(6, STEPS)]


def test_a_complete_run_is_not_done_again(
    script: ModuleType, trained: Path, data: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    assert start(script, data, weights, trained) == 0
    assert "complete" in capsys.readouterr().out
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_training_lowers_the_loss(script: ModuleType, data: Path, weights: Path, tmp_path: Path) -> None:
    assert start(script, data, weights, tmp_path, "--epochs", "20", "--lr", "3e-3", "--smoothing", "0") == 0
    means = record(tmp_path)["loss"]["means"]
    assert means[-1] < 0.5 * means[0]


def test_first_features_are_those_of_the_given_weights(script: ModuleType, weights: Path) -> None:
    start = script.starting_model(weights, ["a", "b"], 16, 0)
    model, prepared = start.model, start.images
    backbone = load_model(f"hf:{weights}", head="encoder")
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        ours, theirs = (each(images).last_hidden_state for each in (model.dinov2.eval(), backbone))
    assert model.dinov2.embeddings.position_embeddings.shape[1] == 5
    torch.testing.assert_close(ours, theirs)
    assert (prepared.resize, prepared.crop) == (16, (16, 16))


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99))
def test_the_learning_rate_rises_then_falls(script: ModuleType, steps: int, warmup: float) -> None:
    settings = script.Settings(lr=2.0, warmup=warmup)
    learning_rate = importlib.import_module("loop").learning_rate
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    highest = rates.index(max(rates))
    assert rates == sorted(rates[: highest + 1]) + sorted(rates[highest + 1 :], reverse=True)
    assert min(rates) > 0
    assert max(rates) == pytest.approx(2.0)


@given(images=st.integers(1, 200), epoch=st.integers(0, 5), seed=st.integers(0, 5))
def test_an_epoch_sees_every_photograph_once(script: ModuleType, images: int, epoch: int, seed: int) -> None:
    order = script.photographs.order(images, epoch, seed)
    assert sorted(order) == list(range(images))
    assert order == script.photographs.order(images, epoch, seed)


def test_about_half_of_the_photographs_are_mirrored(script: ModuleType) -> None:
    inputs = torch.arange(2.0).expand(2000, 1, 1, 2)
    mirrored = script.photographs.flipped(inputs, 3, 0)[:, 0, 0, 0]
    # Binomial, n = 2000: outside of 5 standard deviations with a probability of 6e-7.
    assert abs(mirrored.sum().item() - 1000) < 5 * (2000 * 0.25) ** 0.5
    assert torch.equal(mirrored, script.photographs.flipped(inputs, 3, 0)[:, 0, 0, 0])


def one_class(folder: Path) -> None:
    for part in ("train", "test"):
        tiny.image(folder / part / "only" / "0.png", 0)


def no_test(folder: Path) -> None:
    tiny.photographs(folder / "train")


def no_images(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "empty").mkdir(parents=True)


def an_empty_class(folder: Path) -> None:
    tiny.photographs(folder / "test", each=1)
    (tiny.photographs(folder / "train") / "void").mkdir()


def another_class(folder: Path) -> None:
    tiny.photographs(folder / "train")
    tiny.image(tiny.photographs(folder / "test", each=1) / "new" / "0.png", 0)


def too_few(folder: Path) -> None:
    tiny.photographs(folder / "train", each=2)
    tiny.photographs(folder / "test", each=1)


def a_broken_one(folder: Path) -> None:
    tiny.photographs(folder / "train")
    tiny.photographs(folder / "test", each=1)
    names = sorted(file.relative_to(folder / "train").as_posix() for file in (folder / "train").rglob("*.*"))
    (folder / "train" / names[in_hash_order(names)[-1]]).write_bytes(b"no image")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "there is no such folder"),
        (one_class, "holds only the class 'only'"),
        (no_test, "holds no folder 'test'"),
        (no_images, "holds no images in folders by class"),
        (an_empty_class, "holds no images; remove it or fill it"),
        (another_class, "has a class 'new'"),
        (too_few, "--held-out 6: must be from 1 to 5"),
        (a_broken_one, "cannot be read as an image"),
    ],
)
def test_bad_photographs_get_one_line(
    script: ModuleType, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, words: str
) -> None:
    make(tmp_path / "data")
    assert words in refused(script, tmp_path / "data", weights, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--size", "20", "is no multiple of the patch, 8 pixels"),
        ("--lr", "0", "must be above 0"),
        ("--lr", "nan", "must be above 0"),
        ("--epochs", "0", "must be 1 or more"),
        ("--every", "0", "must be 1 or more"),
        ("--smoothing", "1", "must be from 0 to below 1"),
        ("--seed", "-1", "must be 0 or more"),
        ("--lr", "1e38", "lower the rate"),
        ("--weights", "nowhere", "there is no such folder"),
        ("--out", str(Path(__file__)), "cannot be made"),
    ],
)
def test_bad_options_get_one_line(
    script: ModuleType, data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    option: str, value: str, words: str,
) -> None:  # fmt: skip
    line = refused(script, data, weights, tmp_path, capsys, option, value)
    assert words in line
    assert option in line


def test_other_weights_get_one_line(
    script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.deit(tmp_path / "deit", cls="DeiTModel")
    capsys.readouterr()
    assert "is a deit model; name a folder of DINOv2" in refused(script, data, other, tmp_path / "out", capsys)


def test_what_another_run_left_is_not_gone_on_with(
    script: ModuleType, trained: Path, data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert "of a run with seed = 0, not 1" in refused(script, data, weights, trained, capsys, "--seed", "1")
    with monkeypatch.context() as patch:
        patch.setattr(script, "save_model", interrupt)
        assert start(script, data, weights, tmp_path) == 130
    capsys.readouterr()
    assert "of a run with lr = 5e-05, not 0.1" in refused(script, data, weights, tmp_path, capsys, "--lr", "0.1")
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    assert "is no checkpoint that can be read" in refused(script, data, weights, tmp_path, capsys)


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
