"""The rescue's results: what is collected, told, drawn and claimed, from small made-up results."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.study.read_study import make_study, read_study
from ohmformer.study.sweep import read_sweeps
from tests.reproductions.scripts import imported
from tests.study import small

FOLDER = Path(__file__).parents[2] / "reproductions" / "clipformer_tcad_2024"
MODULES = ("stored", "tables", "costs", "figures", "histograms", "judged", "rescue")
SETS: dict[str, dict[str, Any]] = {
    "none": {"mitigation.clip": "none"},
    "clip": {"mitigation.clip": {"alpha": 2.0, "beta": 0.25}},
    "calibrated": {"mitigation.clip": "calibrated"},
    "auto": {"mitigation.kv": "auto"},
}
MEANS = {"none": (0.9, 0.6, 0.2), "clip": (0.5, 0.5, 0.5), "calibrated": (0.9, 0.7, 0.5), "auto": (0.9, 0.9, 0.85)}
GAMMAS = (0, 3, 5)
SAMPLES = 200


@dataclass(frozen=True)
class Scripts:
    """The modules of the folder, imported as they import each other when they run."""

    stored: ModuleType
    tables: ModuleType
    costs: ModuleType
    figures: ModuleType
    histograms: ModuleType
    judged: ModuleType
    rescue: ModuleType


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with imported(FOLDER, MODULES) as modules:
        yield Scripts(*modules)


def point(mean: float, gamma: float, settings: dict[str, Any], label: str = "") -> dict[str, Any]:
    """Two chips that are right on the same first samples."""
    right = round(mean * SAMPLES)
    noise = {"kind": "sqrt_range", "gamma": gamma, "sigma": 0.2}
    return {
        "set": settings if label else {small.GAMMA: gamma, **settings},
        **({"label": label} if label else {}),
        "accuracy": {
            "metric": "top1", "level": "noise", "software": 0.9, "mean": mean, "ci95": [mean - 0.05, mean + 0.05],
            "chips": [mean, mean], "samples": SAMPLES, "hits": "2" * right + "0" * (SAMPLES - right),
        },
        "write_noise": {"projection": None, "key": noise, "value": noise},
    }  # fmt: skip


def write(folder: Path, name: str, points: list[dict[str, Any]], asked: int = 12) -> None:
    software = "1" * round(0.9 * SAMPLES) + "0" * round(0.1 * SAMPLES)
    content = {"study": name, "asked": asked, "software_hits": software, "points": points}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main study whole, those of the trained models in part, two steps of the ablation, and nothing else."""
    folder = tmp_path_factory.mktemp("results")
    rows = [(m, g, mean) for m, means in MEANS.items() for g, mean in zip(GAMMAS, means, strict=True)]
    write(folder, "vit_s", [point(mean, g, SETS[m]) for m, g, mean in rows])
    write(folder, "vit_s_vat", [point(mean, g, SETS[m]) for m, g, mean in rows if m in ("none", "auto")])
    write(folder, "vit_s_vat_clip", [point(0.6, 5, SETS["clip"])])
    write(folder, "vit_s_vat_kv", [point(mean - 0.02, g, SETS[m]) for m, g, mean in rows if m == "auto"])
    steps = [point(0.5, 3, {"mitigation.kv": {"mean": True}}), point(0.7, 5, {"x": 1}, "noise in K only (γσ 1)")]
    write(folder, "ablation", steps)
    return folder


def test_every_study_can_be_read_and_asks_for_what_tables_and_figures_show(scripts: Scripts) -> None:
    files = {file.stem: file for file in (FOLDER / "studies").glob("*.toml")}
    assert set(files) == {*scripts.stored.STUDIES, scripts.stored.ABLATION}
    for name, file in files.items():
        document = catalog.read(file)
        sweeps = read_sweeps(document["sweep"])
        short = [{"label": one.label, **{path: list(values[:1]) for path, values in one.axes}} for one in sweeps]
        assert len(make_study({**document, "sweep": short}).points) == len(sweeps), name
        rows = [{"set": values, "label": sweep.label} for sweep in sweeps for values in sweep.sets()]
        assert len({repr(row["set"]) for row in rows}) == len(rows), name
        methods = {scripts.stored.method_of(row["set"], row["label"]) for row in rows}
        less = {"_vat": {"none", "clip"}, "_vat_clip": {"clip"}}
        wanted = next((these for end, these in less.items() if name.endswith(end)), {"none", "clip", "auto"})
        assert name == scripts.stored.ABLATION or wanted <= methods <= set(SETS), name
        # What was trained is measured as its parent is, in all but the model.
        parent = next((name.removesuffix(end) for end in scripts.stored.TRAINED if name.endswith(end)), name)
        same = catalog.read(files[parent])
        parts = ("task", "hardware", "simulation", "trials")
        assert [document[part] for part in parts] == [same[part] for part in parts], name
        assert (document["model"] == same["model"]) == (parent == name), name


def test_tables_tell_gains_with_their_bounds_and_what_is_missing(scripts: Scripts, results: Path) -> None:
    found = scripts.rescue.blocks(results)
    assert "| 5 | 1 | 20.0 [15.0, 25.0] | 50.0 [45.0, 55.0] | 50.0 [45.0, 55.0] | 85.0 [80.0, 90.0] |" in found["vit_s"]
    # Chips agree, so only samples count: 60 of 200 differ, sd 0.459, t(199) = 1.972.
    assert "| 5 | +30.0 [+23.6, +36.4] |" in found["vit_s"]
    assert "6 of 12 points are measured" in found["vit_s_vat"]
    assert found["smollm2_news"] == "*Not measured yet.*"
    assert "| ViT-S on photographs, noise per cell | 5 | - | 0, 3 |" in found["clipping"]
    assert "| mean removed | 50.0 [45.0, 55.0] |" in found["ablation"]
    assert "| noise in K only (γσ 1) | 70.0 [65.0, 75.0] |" in found["ablation"]


def test_what_a_study_does_not_ask_for_is_not_missing(scripts: Scripts, tmp_path: Path) -> None:
    points = [point(0.8, 3, SETS["none"]), point(0.9, 3, SETS["auto"]), point(0.85, 5, SETS["auto"])]
    write(tmp_path, "vit_s", points, asked=3)
    text = scripts.rescue.blocks(tmp_path)["vit_s"]
    assert "| 5 | 1 | - | 85.0 [80.0, 90.0] |" in text
    assert "not measured" not in text
    assert text.count("| 3 |") == 2, "one row of accuracies, one of gains"
    assert text.count("| 5 |") == 1, "nothing to pair"


def test_what_was_asked_for_is_judged(scripts: Scripts, results: Path) -> None:
    text = scripts.rescue.blocks(results)["judged"]
    assert (
        "keeps 60.0 % (67 % of it) at γ = 3, the level nearest to a half, and 20.0 % (22 % of it) at γ = 5, the" in text
    )
    assert "ClipFormer gains +30.0 [+23.6, +36.4] at γ = 5; required: 10 to 40 points: holds." in text
    assert "to ours, +10.0 [+5.8, +14.2], +20.0 [+14.4, +25.6]; required: all bounds above zero" in text
    assert (
        "Ours where a half is left**, γ = 3: 90.0 [85.0, 95.0] %, 0.0 points below software (difference +0.0 [" in text
    )
    assert "points below software (difference +0.0 [+0.0, +0.0]); allowed: 2: holds." in text
    mean_only = "allowed: 8: holds for the mean, not for the far end of its interval."
    assert f"85.0 [80.0, 90.0] %, 5.0 points below software (difference -5.0 [-8.0, -2.0]); {mean_only}" in text
    assert "**No harm.** Of γ = 0, 3, 5, ours is certainly below no mitigation at no level: holds." in text
    assert "Training and ClipFormer's clip, trained without it**: not measured yet." in text
    assert "clip, trained with it**: 60.0 % at γ = 5 (against training alone +40.0 [+33.2, +46.8], against" in text
    assert (
        "against the clip alone +10.0 [+5.8, +14.2]). Required: above training alone and above the clip alone: holds."
        in text
    )
    assert "Ours with variation-aware training**, γ = 5: 83.0 [78.0, 88.0] %, 7.0 points below" in text
    assert "allowed: 4: does not hold." in text


def test_what_fails_is_said_to_fail(scripts: Scripts, tmp_path: Path) -> None:
    means = {
        "none": (0.9, 0.45, 0.2),
        "clip": (0.5, 0.5, 0.25),
        "calibrated": (0.9, 0.5, 0.4),
        "auto": (0.85, 0.5, 0.4),
    }
    rows = [(m, g, mean) for m, found in means.items() for g, mean in zip(GAMMAS, found, strict=True)]
    write(tmp_path, "vit_s", [point(mean, g, SETS[m]) for m, g, mean in rows])
    write(tmp_path, "vit_s_vat", [point(0.22, g, SETS[m]) for m, g, _ in rows if m in ("none", "clip")])
    lines = scripts.rescue.blocks(tmp_path)["judged"].splitlines()[1:-2]
    assert all(line.endswith("does not hold.") for line in lines), lines
    assert len(lines) == 7


def test_nothing_measured_is_said_everywhere(scripts: Scripts, tmp_path: Path) -> None:
    found = scripts.rescue.blocks(tmp_path)
    assert {text for name, text in found.items() if name != "cost"} == {"*Not measured yet.*"}
    assert scripts.rescue.measured(tmp_path)["series"] == {}


def test_the_page_in_the_documentation_is_made_of_the_stored_results(scripts: Scripts) -> None:
    text = (FOLDER.parents[1] / "docs" / "rescue_details.md").read_text(encoding="utf-8")
    found = scripts.rescue.blocks(FOLDER / "results")
    assert scripts.rescue.filled("page", text, found) == text, (
        "run: python reproductions/clipformer_tcad_2024/rescue.py"
    )
    assert all(f"<!-- {name} -->" in text for name in found)
    with pytest.raises(BadInput, match="marker 'odd' is unknown"):
        scripts.rescue.filled("page", "<!-- odd -->\n<!-- end odd -->", found)


def test_the_claims_are_judged_by_the_stored_results(scripts: Scripts) -> None:
    shipped = json.loads(scripts.rescue.CLAIMS.read_text(encoding="utf-8"))
    assert shipped == scripts.rescue.measured(FOLDER / "results"), "run rescue.py"


def test_gains_between_models_are_paired_as_the_claims_ask(scripts: Scripts, results: Path) -> None:
    found = scripts.rescue.measured(results)
    assert found["series"]["standard"]["means"]["auto"] == {"0": 0.9, "3": 0.9, "5": 0.85}
    gains = {(gain["than"], gain["better"], gain["gamma"]): gain for gain in found["gains"]}
    assert gains["vat.none", "standard.clip", 5]["mean"] == pytest.approx(0.3)
    assert ("standard.clip", "vat.clip", 5) not in gains
    claims = tomllib.loads((scripts.rescue.CLAIMS.parent / "claims.toml").read_text(encoding="utf-8"))["claim"]
    order = next(claim for claim in claims if claim["id"] == "order")["series"]
    own = {(f"{m}.{a}", f"{m}.{b}") for m in scripts.rescue.MODELS for a, b in scripts.stored.COMPARED}
    assert set(pairwise(order)) <= own | set(scripts.rescue.PLATFORM_CHAINS)


@pytest.mark.slow
def test_all_figures_are_drawn_with_and_without_results(scripts: Scripts, results: Path, tmp_path: Path) -> None:
    for folder in (results, tmp_path):
        files = scripts.rescue.draw_all(scripts.figures.DRAWN, folder, tmp_path / "figures", "rescue")
        assert {file.stem for file in files} == {f"rescue_{name}" for name in scripts.figures.DRAWN}
        assert all(file.stat().st_size > 1000 for file in files)


def test_models_trained_under_noise_stand_beside_their_parent(scripts: Scripts, results: Path) -> None:
    found = {name: scripts.stored.curves(name, results) for name in ("vit_s", "vit_s_vat", "vit_s_vat_kv")}
    columns = scripts.figures._columns(found["vit_s"], results)
    assert [scripts.figures.LINES[line] for line in columns][-3:] == ["VAT", "VAT + ClipFormer", "VAT + ours"]
    assert columns["_vat"] == found["vit_s_vat"].found["none"]
    assert columns["_vat_kv"] == found["vit_s_vat_kv"].found["auto"]
    assert len({*scripts.figures.LOOK.values()}) == len(scripts.figures.LINES)
    assert scripts.figures._columns(found["vit_s_vat"], results) == found["vit_s_vat"].found


def test_tables_have_no_column_of_gains_over_what_a_study_does_not_ask(scripts: Scripts, results: Path) -> None:
    blocks = scripts.rescue.blocks(results)
    assert "no mitigation → ours |" in blocks["vit_s_vat"]
    assert "ClipFormer (2, 0.25) →" not in blocks["vit_s_vat"]
    assert "Paired gains" not in blocks["vit_s_vat_kv"]


def test_conditioning_takes_no_more_arrays_and_writes_than_no_mitigation(scripts: Scripts) -> None:
    for model in scripts.costs.PASSES.values():
        plain, clipped, *ours = (scripts.costs.priced(own, model) for own in scripts.costs.MITIGATIONS.values())
        assert len(ours) == 2
        arrays, fewer = (run.placement.arrays["attention.key"] for run in (plain, clipped))
        assert fewer * 4 == arrays * 3
        written = scripts.costs.write_energy(plain.placement)
        assert written > scripts.costs.write_energy(clipped.placement) > 0
        for run in ours:
            assert run.placement.arrays == plain.placement.arrays
            assert scripts.costs.write_energy(run.placement) == written
            assert run.energy > plain.energy  # the work of the lanes is counted


@pytest.fixture(scope="module")
def heard(scripts: Scripts) -> dict[int, dict[str, Any]]:
    """Gamma -> what is measured of the bundled model."""
    file = str(FOLDER / "studies" / "fashion_vit.toml")
    points = {gamma: read_study(file, [f"{small.GAMMA}={gamma}"]).points[0] for gamma in (0, 5)}
    return {gamma: scripts.histograms.measured(one.settings, 2) for gamma, one in points.items()}


def test_histograms_do_not_replace_what_is_stored_without_a_word(
    scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = scripts.histograms
    monkeypatch.setattr(module, "FILE", tmp_path / "conductances.json")
    module.check_kept("vit_s", 8)  # nothing is stored
    module.keep("vit_s", "3", 32, {"snr": 1})
    module.keep("vit_s", "5", 32, {"snr": 2})
    module.keep("vit_s", "5", 32, {"snr": 2})
    assert capsys.readouterr().out == ""
    module.check_kept("vit_s", 32)
    with pytest.raises(BadInput, match=r"holds vit_s measured on 32 images.*give --images 32, or --replace$"):
        module.check_kept("vit_s", 8)
    module.keep("vit_s", "5", 32, {"snr": 3})
    assert capsys.readouterr().out.endswith("of vit_s at gamma 5\n")
    module.keep("vit_s", "3", 8, {"snr": 1})
    assert capsys.readouterr().out.endswith("of vit_s at gamma 3, 5\n")


@pytest.mark.slow
def test_histograms_hold_all_values_and_end_where_the_clip_ends(heard: dict[int, dict[str, Any]]) -> None:
    for axis in "KV":
        plain, clipped = (heard[5]["histograms"][method][axis] for method in ("none", "clip"))
        assert sum(plain) == pytest.approx(1.0, abs=1e-4)
        assert sum(clipped[:16]) == pytest.approx(1.0, abs=1e-4)  # 62 of 255 lies below 16 of 64
        assert heard[5]["quantiles"]["clip"][axis][-1] == pytest.approx(62 / 255, abs=1e-4)
        assert heard[5]["quantiles"]["none"][axis][-1] == 1.0


def test_signal_to_noise_is_that_of_rounding_without_noise_and_falls_with_it(heard: dict[int, dict[str, Any]]) -> None:
    still, noisy = (np.array(heard[gamma]["snr"]["none"]) for gamma in (0, 5))
    assert still.shape == (8, 3)
    assert (still[:, 0] > 25).all()
    assert (noisy[:, 0] < still[:, 0] - 10).all()
    clipped = np.array(heard[0]["snr"]["clip"])
    assert (clipped[:, 0] < still[:, 0]).all()
