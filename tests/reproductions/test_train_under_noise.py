"""Training the models of studies under noise without labels: a classifier, an embedding model, a language model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ohmformer.capture.inputs import leaves, size, take
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.loaded import loaded
from ohmformer.study.read_study import read_study
from ohmformer.study.spec import Settings
from ohmformer.tasks.load import make_task
from tests.tasks import tiny

ARCHITECTURE = {"size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "classes": 3}
KINDS = ("classes", "features", "tokens")
HARDWARE = '"clipformer_tcad_2024"\n"projection.array.cell.write_noise.gamma"'
FEW = ("--gamma", "3:5", "--steps", "6", "--batch", "4", "--every", "2", "--lr", "1e-3")


@dataclass(frozen=True)
class Case:
    """A study, and how one that names the trained model is written."""

    file: Path
    named: Callable[[Path], Path]
    trained: Callable[[Path], Path]


def study(file: Path, model: str, task: str) -> Path:
    file.write_text(
        f'name = "tiny"\n[model]\nsource = "{model}"\n[task]\n{task}\n[hardware]\nbase = {HARDWARE} = 0\n'
        '[trials]\nchips = 2\n[simulation]\nlevel = "noise"\nbatch = 4\n'
        '[sweep]\n"hardware.attention.array.cell.write_noise.gamma" = [3]\n'
    )
    return file


def library(folder: Path) -> Path:
    """A classifier and gray images, of which one that calibrates and one that is scored are the same."""
    (folder / "bundled").mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(**ARCHITECTURE)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_file(model.state_dict(), folder / "bundled" / "tiny.safetensors", {"architecture": json.dumps(ARCHITECTURE)})
    images = np.random.default_rng(0).integers(0, 256, (160, 8, 8), dtype=np.uint8)
    images[110] = images[131]
    for part, rows in (("calibration", images[:130]), ("test", images[130:])):
        np.savez(folder / "bundled" / f"tiny_{part}.npz", images=rows, labels=np.zeros(len(rows), np.uint8))
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("cases")
    bert, llama = tiny.bert(folder / "bert"), tiny.llama(folder / "llama")
    (bert / "1_Pooling").mkdir()
    (bert / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    tasks = {
        "classes": ("bundled:tiny", 'source = "bundled:tiny"\nlimit = 20'),
        "features": (
            f"hf:{bert}",
            f'source = "csv:{tiny.reviews(folder / "reviews.csv")}"\nprobe = true\n'
            "calibration = 8\ntrain = 20\nlimit = 20",
        ),
        "tokens": (
            f"hf:{llama}",
            f'source = "text:{tiny.prose(folder / "prose.txt", 400)}"\n'
            "window = 16\ncalibration = 2\nlimit = 4\nprefill = 8",
        ),
    }

    def case(kind: str) -> Case:
        model, task = tasks[kind]
        bundled = model.startswith("bundled")

        def named(out: Path) -> Path:
            source = f"bundled:{out.name.replace('_', '-')}" if bundled else f"hf:{out / 'model'}"
            return study(out.parent / f"{out.name}.toml", source, task)

        def trained(out: Path) -> Path:
            return (
                out
                / ("bundled" if bundled else "model")
                / (f"{out.name}.safetensors" if bundled else "model.safetensors")
            )

        return Case(study(folder / f"{kind}.toml", model, task), named, trained)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OHMFORMER_LIBRARY", str(library(folder / "library")))
        yield {kind: case(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def start(script: ModuleType, file: Path, out: Path, *more: str) -> int:
    status: int = script.main(["--study", str(file), "--out", str(out), *FEW, *more])
    return status


def record(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "result.json").read_text())
    return {name: value for name, value in content.items() if name != "minutes"}


def settings_of(file: Path) -> Settings:
    return read_study(str(file)).points[0].settings


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_training_lowers_the_loss_under_noise(under_noise: ModuleType, case: Case, tmp_path: Path) -> None:
    assert start(under_noise, case.file, tmp_path / "out", "--gamma", "4", "--steps", "100", "--lr", "3e-3") == 0
    means = record(tmp_path / "out")["loss"]["means"]
    assert len(means) == 5
    assert means[-1] < 0.8 * means[0]


@pytest.mark.parametrize("more", [(), ("--kv", "auto", "--bfloat16")], ids=["as they come", "kv and bfloat16"])
@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(
    under_noise: ModuleType, case: Case, tmp_path: Path, more: tuple[str, ...]
) -> None:
    outs = [tmp_path / part / "out" for part in ("stopped", "whole")]
    calls: list[int] = []

    def interrupted(training: Any, *args: Any) -> float:
        calls.append(training.step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        loss: float = step(training, *args)
        return loss

    step = under_noise.gradient_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_noise, "gradient_step", interrupted)
        assert start(under_noise, case.file, outs[0], *more) == 130
        assert start(under_noise, case.file, outs[0], *more) == 0
    torch.rand(7)
    assert calls == [0, 1, 2, 3, 2, 3, 4, 5]
    assert start(under_noise, case.file, outs[1], *more) == 0
    assert alike(*(load_file(case.trained(out)) for out in outs))
    assert record(outs[0]) == record(outs[1])


@pytest.mark.slow
def test_a_study_can_name_what_was_trained(
    under_noise: ModuleType, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    models: list[torch.nn.Module] = []

    def watched(model: torch.nn.Module, *args: Any) -> float:
        models.append(model)
        found: float = far(model, *args)
        return found

    far = under_noise.far
    monkeypatch.setattr(under_noise, "far", watched)
    out = tmp_path / "my_own"
    assert start(under_noise, case.file, out) == 0
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(out), prepend=":")
    before, after = settings_of(case.file), settings_of(case.named(out))
    assert after.model.source in capsys.readouterr().out
    (_, task), (found, same) = loaded(before.model, before.task), loaded(after.model, after.task)
    assert same.digest == task.digest
    assert same.reading == task.reading
    body = getattr(found, "body", found)
    trained, weights = load_file(case.trained(out)), body.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.items())
    with torch.inference_mode():
        rows = take(task.inputs, slice(0, 4))
        kind, how = under_noise.kind_of(after.task), task.reading
        said = [under_noise.answers(model, rows, kind, how) for model in (body, models[0])]
    torch.testing.assert_close(*said)
    assert evaluate_point(after).accuracy.samples == len(task)
    assert {type(module).__module__.partition(".")[0] for module in body.modules()} <= {
        "torch", "transformers", "ohmformer",
    }  # fmt: skip


@pytest.mark.slow
def test_nothing_is_learned_from_that_is_scored_or_calibrates(
    under_noise: ModuleType, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = settings_of(case.file)
    model, task = loaded(choice.model, choice.task)
    keys = importlib.import_module("unscored").keys
    data = under_noise.unscored(choice.task, getattr(model, "body", model))
    learned, calibrating = keys(data.inputs), take(task.calibration, slice(0, 100))
    assert learned
    assert not set(learned) & {*keys(task.inputs), *keys(calibrating)}
    seen: set[str] = set()

    def watched(training: Any, clean: Any, inputs: Any, *args: Any) -> float:
        mirrored = inputs.flip(-1) if isinstance(inputs, Tensor) else inputs
        for row in zip(keys(inputs), keys(mirrored), strict=True):
            seen.add(row[0] if row[0] in learned else row[1])
        loss: float = step(training, clean, inputs, *args)
        return loss

    step = under_noise.gradient_step
    monkeypatch.setattr(under_noise, "gradient_step", watched)
    assert start(under_noise, case.file, tmp_path / "out", "--steps", "12") == 0
    assert seen <= set(learned)
    assert record(tmp_path / "out")["learned_from"]["samples"] == len(learned) >= len(seen) > 8


def test_an_image_that_is_scored_too_is_left_out(under_noise: ModuleType, cases: dict[str, Case]) -> None:
    choice = settings_of(cases["classes"].file)
    model, task = loaded(choice.model, choice.task)
    found = under_noise.unscored(choice.task, model).inputs
    kept = torch.cat([task.calibration[100:110], task.calibration[111:]])
    assert torch.equal(task.calibration[110], task.inputs[1])
    assert torch.equal(found, kept)


def test_the_second_half_of_a_text_is_learned_from(under_noise: ModuleType, cases: dict[str, Case]) -> None:
    """So more windows can be scored later than the study says."""
    choice = settings_of(cases["tokens"].file)
    model, _ = loaded(choice.model, choice.task)
    whole = make_task(choice.task.model_copy(update={"limit": None}), model)
    found = under_noise.unscored(choice.task, model).inputs
    half = len(whole) // 2
    assert half > 8
    assert torch.equal(found["input_ids"], whole.inputs["input_ids"][half:-1])
    assert bool(found["attention_mask"].all())


def test_padding_that_a_batch_does_not_need_is_left_out(under_noise: ModuleType) -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    inputs = {"input_ids": torch.arange(12).reshape(3, 4), "attention_mask": mask, "use_cache": False}
    found = under_noise.pick(inputs, [2, 0])
    assert found["input_ids"].tolist() == [[8, 9], [0, 1]]
    assert found["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert found["use_cache"] is False
    assert {len(leaf) for _, leaf in leaves(found) if isinstance(leaf, Tensor)} == {size(found)}


def test_steps_meet_noise_but_no_dropout(under_noise: ModuleType, cases: dict[str, Case], tmp_path: Path) -> None:
    """The tiny BERT drops 10 % in training. The first answer without noise is that of the original but for rounding."""
    first = {}
    for gamma in ("0", "5"):
        out = tmp_path / gamma
        assert start(under_noise, cases["features"].file, out, "--gamma", gamma, "--steps", "1") == 0
        (first[gamma],) = record(out)["loss"]["means"]
    assert first["0"] < 1e-4
    assert first["5"] > 5e-4


def test_the_distance_is_that_of_softened_probabilities(under_noise: ModuleType) -> None:
    said, wanted = torch.tensor([[[0.0, 0.0], [9.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 9.0]]])
    mask = torch.tensor([[1, 0]])
    p = torch.sigmoid(torch.tensor(1.0)).item()
    expected = 4 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
    assert under_noise.distance(said, wanted, "tokens", 2.0, mask).item() == pytest.approx(expected, rel=1e-5)
    assert under_noise.distance(wanted, wanted, "classes", 2.0).item() == 0
    turned = under_noise.distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 3.0]]), "features", 1.0)
    assert turned.item() == pytest.approx(1 - 0.5**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--gamma", "6:2"), "--gamma 6:2: must be a number"),
        (("--kv", "hadamard"), "--kv hadamard: must be auto"),
        (("--steps", "0"), "--steps 0: must be 1 or more"),
        (("--batch", "0"), "--batch 0: must be 1 or more"),
        (("--lr", "nan"), "--lr nan: must be above 0"),
        (("--lr", "0"), "--lr 0.0: must be above 0"),
        (("--temperature", "0"), "--temperature 0.0: must be above 0"),
        (("--warmup", "1"), "--warmup 1.0: must be from 0"),
        (("--study", "nowhere.toml"), "nowhere.toml: no such file"),
        (("--out", str(Path(__file__))), "cannot be made"),
    ],
)
def test_bad_options_get_one_line(
    under_noise: ModuleType, cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    assert words in refused(under_noise, cases["classes"].file, tmp_path / "out", capsys, *more)


@pytest.mark.parametrize(
    ("kind", "old", "new", "words"),
    [
        ("classes", '"bundled:tiny"\n[task]', '"python:x:y"\n[task]', "only models of hf: and bundled:"),
        ("classes", "limit = 20", "limit = 31", "task.limit = 31"),
        ("features", "calibration = 8\ntrain = 20\n", "calibration = 8\ntrain = 60\n", "so none is left to score"),
        ("features", "probe = true", 'metric = "fidelity"', "leave it out"),
        ("tokens", "limit = 4", "limit = 20", "the second half is learned from, so at most"),
        ("tokens", "[sweep]", '[rules]\n"lm_head" = { on = "digital" }\n[sweep]', "has rules or mitigation.weights"),
        ("classes", f"{HARDWARE} = 0", '"gtx_1060"', "--study odd: has no crossbars"),
    ],
)  # fmt: skip
def test_studies_that_cannot_be_trained_get_one_line(
    under_noise: ModuleType, cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    kind: str, old: str, new: str, words: str,
) -> None:  # fmt: skip
    text = cases[kind].file.read_text()
    assert old in text
    (tmp_path / "odd.toml").write_text(text.replace(old, new))
    assert words in refused(under_noise, tmp_path / "odd.toml", tmp_path / "out", capsys)


def refused(script: ModuleType, file: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert start(script, file, out, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_what_another_run_left_is_not_gone_on_with(
    under_noise: ModuleType, cases: dict[str, Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = cases["classes"].file, tmp_path / "out"
    assert start(under_noise, file, out) == 0
    assert start(under_noise, file, out) == 0
    assert "this run is complete" in capsys.readouterr().out
    assert "of a run with seed = 0, not 1" in refused(under_noise, file, out, capsys, "--seed", "1")
    assert "of a run with gamma = [3.0, 5.0], not [1.0, 5.0]" in refused(
        under_noise, file, out, capsys, "--gamma", "1:5"
    )
    assert "of a run with kv = None, not 'auto'" in refused(under_noise, file, out, capsys, "--kv", "auto")
