"""Training a classifier on noisy crossbars: it resumes to the bit, meets the noise asked for, saves clean weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ohmformer.models.load import load_model
from ohmformer.nn.variation import Variation
from ohmformer.tasks.load import load_task
from tests.reproductions.starts import STEPS, record, refused, start, stopped

NOISY = ("--hardware", "clipformer_tcad_2024", "--gamma", "2:6", "--lr", "1e-3")


@pytest.fixture(scope="module")
def classifier(script: ModuleType, data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run without crossbars has saved."""
    out = tmp_path_factory.mktemp("plain")
    assert start(script, data, weights, out, "--lr", "1e-3") == 0
    return out / "model"


@pytest.fixture(scope="module")
def trained(script: ModuleType, data: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on crossbars that nobody stopped."""
    out = tmp_path_factory.mktemp("noisy")
    assert start(script, data, classifier, out, *NOISY) == 0
    return out


def saved(out: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(out / "model" / "model.safetensors")
    return found


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "more", [(), ("--bfloat16", "--clip", "2,0.25"), ("--kv", "auto")], ids=["float32", "bfloat16 and clip", "kv"]
)
@pytest.mark.slow
def test_a_stopped_run_meets_the_same_noise(
    script: ModuleType, data: Path, classifier: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    outs = tmp_path / "stopped", tmp_path / "whole"
    stopped(script, 5, data, classifier, outs[0], *NOISY, *more)
    for out in outs:
        assert start(script, data, classifier, out, *NOISY, *more) == 0
    assert alike(*map(saved, outs))
    assert record(outs[0]) == record(outs[1])


def test_what_is_saved_is_a_digital_model_of_the_trained_weights(trained: Path, classifier: Path, data: Path) -> None:
    model = load_model(f"hf:{trained / 'model'}")
    before = load_file(classifier / "model.safetensors")
    assert saved(trained).keys() == before.keys()
    assert all(
        not torch.equal(before[name], tensor) for name, tensor in saved(trained).items() if name.endswith("weight")
    )
    assert {type(module).__module__.partition(".")[0] for module in model.modules()} <= {"torch", "transformers"}
    task = load_task(f"imagefolder:{data}", model=model)
    with torch.inference_mode():
        hits = (model(task.inputs[:12]).logits.argmax(1) == task.labels).double()
    found = record(trained)
    assert found["test"]["accuracy"] == hits.mean().item()
    assert found["crossbars"]["hardware"] == "clipformer_tcad_2024"
    assert found["crossbars"]["gamma"] == [2, 6]


def test_steps_draw_their_factor_from_the_range_and_for_k_and_v_alone(
    script: ModuleType, data: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []

    def watched(self: Variation) -> Any:
        step = draw(self)
        drawn.append({name: cell.write_noise.gamma for name, cell in step.cells.items()})  # type: ignore[union-attr]
        return step

    draw = Variation.draw
    monkeypatch.setattr(Variation, "draw", watched)
    assert start(script, data, classifier, tmp_path, *NOISY) == 0
    factors = [next(iter(each.values())) for each in drawn]
    assert len(factors) == STEPS == len(set(factors))
    assert all(2 <= factor <= 6 for factor in factors)
    assert all(set(each.values()) == {factor} for each, factor in zip(drawn, factors, strict=True))
    assert {name[-2:] for each in drawn for name in each} == {".K", ".V"}


@pytest.mark.slow
def test_noise_and_clip_change_what_is_learned(
    script: ModuleType, data: Path, classifier: Path, trained: Path, tmp_path: Path
) -> None:
    ways = {
        "0": NOISY + ("--gamma", "0"),
        "clip": NOISY + ("--clip", "2,0.25"),
        "kv": NOISY + ("--kv", "auto"),
        "digital": ("--lr", "1e-3"),
    }
    for name, options in ways.items():
        assert start(script, data, classifier, tmp_path / name, *options) == 0
    found = [saved(trained), *(saved(tmp_path / name) for name in ways)]
    assert not any(alike(one, other) for place, one in enumerate(found) for other in found[:place])


def test_a_head_is_kept_where_the_classes_agree(
    script: ModuleType, weights: Path, classifier: Path, data: Path
) -> None:
    names = json.loads((classifier / "config.json").read_text())["id2label"].values()
    model = load_model(f"hf:{classifier}")
    images = torch.randn(2, 3, 16, 16)
    kept = script.starting_model(classifier, list(names), 16, 0)
    others = [
        script.starting_model(classifier, list(names)[::-1], 16, 0),
        script.starting_model(weights, list(names), 16, 0),
    ]
    assert [kept.head, *(other.head for other in others)] == ["kept", "new", "new"]
    assert len({kept.digest, *(other.digest for other in others)}) == 3
    with torch.inference_mode():
        torch.testing.assert_close(kept.model.eval()(images).logits, model(images).logits, rtol=0, atol=0)
        for other in others:
            assert not torch.equal(other.model.eval()(images).logits, model(images).logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gamma", "3"), "--gamma 3: is for training on crossbars; name them with --hardware"),
        (("--clip", "2,0.25"), "--clip 2,0.25: is for training on crossbars; name them with --hardware"),
        ((*NOISY, "--hardware", "clipformer"), "--hardware clipformer: "),
        ((*NOISY, "--hardware", "rram_clipformer_2024"), "--hardware rram_clipformer_2024: "),
        ((*NOISY, "--hardware", "nvm_ideal"), "--gamma: write noise 'proportional' of the cells of"),
        ((*NOISY, "--hardware", "xformer_tvlsi_2023"), "--gamma for 'attention' changes nothing"),
        (("--hardware", "gtx_1060"), "--hardware gtx_1060: has no crossbars"),
        ((*NOISY, "--gamma", "6:2"), "--gamma 6:2: must be a number, 0 or more, or LOW:HIGH"),
        ((*NOISY, "--gamma=-1"), "--gamma -1: must be"),
        ((*NOISY, "--gamma", "nan"), "--gamma nan: must be"),
        ((*NOISY, "--gamma", "1:inf"), "--gamma 1:inf: must be"),
        ((*NOISY, "--gamma", "2:4:6"), "--gamma 2:4:6: must be"),
        ((*NOISY, "--gamma", "high"), "--gamma high: must be"),
        (("--kv", "auto"), "--kv auto: is for training on crossbars; name them with --hardware"),
        ((*NOISY, "--kv", "hadamard"), "--kv hadamard: must be auto"),
        ((*NOISY, "--kv", "auto", "--clip", "2,0.25"), "--kv auto: chooses clips too"),
        ((*NOISY, "--clip", "2"), "--clip 2: must be two numbers"),
        ((*NOISY, "--clip=-1,0.25"), "--clip"),
        ((*NOISY, "--clip", "2,nan"), "--clip"),
        ((*NOISY, "--clip", "2,0.001"), "nothing is left; raise beta"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_bad_options_get_one_line(
    script: ModuleType, data: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    capsys.readouterr()
    assert words in refused(script, data, classifier, tmp_path, capsys, *options)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--gamma", "2:5"), "of a run with gamma = [2.0, 6.0], not [2.0, 5.0]"),
        (("--clip", "2,0.25"), "of a run with clip = None, not {"),
        (("--hardware", "clipformer_tcad_2024_per_value"), "of a run with hardware = 'clipformer_tcad_2024', not"),
    ],
)
def test_a_run_on_other_crossbars_is_not_gone_on_with(
    script: ModuleType, data: Path, classifier: Path, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    capsys.readouterr()
    assert words in refused(script, data, classifier, trained, capsys, *NOISY, *more)


def test_a_run_on_none_is_another_one(
    script: ModuleType, data: Path, classifier: Path, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stopped(script, 4, data, classifier, tmp_path, *NOISY)
    capsys.readouterr()
    for out in (trained, tmp_path):
        assert "of a run with crossbars = {" in refused(script, data, classifier, out, capsys, "--lr", "1e-3")


def test_a_complete_run_is_not_done_again(
    script: ModuleType, data: Path, classifier: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(script, data, classifier, trained, *NOISY) == 0
    assert "complete" in capsys.readouterr().out


def test_a_run_stopped_after_its_last_step_only_saves(
    script: ModuleType, data: Path, classifier: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "save_model", interrupt)
        assert start(script, data, classifier, tmp_path, *NOISY) == 130
    assert start(script, data, classifier, tmp_path, *NOISY) == 0
    assert alike(saved(tmp_path), saved(trained))
