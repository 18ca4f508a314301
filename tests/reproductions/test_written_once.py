"""The page of cells that are written once: rows that hold, miss and are missing, from small made-up results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.study.read_study import make_study
from ohmformer.study.sweep import read_sweeps
from tests.reproductions.scripts import imported

FOLDER = Path(__file__).parents[2] / "reproductions" / "written_once"
MODULES = ("methods", "losses", "judging", "sections", "choices", "drawing", "written_once")
SAMPLES = 1500


@dataclass(frozen=True)
class Scripts:
    """The modules of the folder, imported as they import each other when they run."""

    methods: ModuleType
    losses: ModuleType
    judging: ModuleType
    sections: ModuleType
    choices: ModuleType
    drawing: ModuleType
    written_once: ModuleType


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with imported(FOLDER, MODULES) as modules:
        yield Scripts(*modules)


def row(label: str, gamma: float, accuracy: dict[str, Any], sigma: float = 0.2, **more: Any) -> dict[str, Any]:
    """A point with the price of a pass; every method but the first takes a tenth more energy."""
    noise = {"kind": "sqrt_range", "gamma": gamma, "sigma": sigma}
    energy = 2e-3 if label.startswith("nothing") else 2.2e-3
    return {
        "set": {"gamma": gamma},
        "label": label,
        "accuracy": {"level": "noise", **accuracy},
        "write_noise": {"projection": None, "key": noise, "value": noise},
        "cost": {"latency_s": 1e-3, "energy_J": energy, "area_m2": 1e-4, "arrays": 100, "wear": 2.0},
        **more,
    }


def hits(mean: float, *, samples: int = SAMPLES, chips: int = 5, **more: Any) -> dict[str, Any]:
    """An accuracy of chips that are right on the same first samples."""
    right = round(mean * samples)
    return {
        "metric": "top1", "software": 0.9, "mean": mean, "ci95": [mean - 0.02, mean + 0.02], "chips": [mean] * chips,
        "samples": samples, "hits": str(chips) * right + "0" * (samples - right), **more,
    }  # fmt: skip


def perplexity(factor: float, *, chips: int = 5, **more: Any) -> dict[str, Any]:
    """A perplexity that noise raises by the same factor on each chip and window."""
    return {
        "metric": "perplexity", "software": 50.0, "mean": 50 * factor, "ci95": [30 * factor, 80 * factor],
        "chips": [50 * factor] * chips, "samples": 8, "left_out": [factor * (48 + number) for number in range(8)],
        "digital_tokens": 0.03125, **more,
    }  # fmt: skip


def write(folder: Path, name: str, points: list[dict[str, Any]], **head: Any) -> None:
    head = head or {"software_hits": "1" * 1350 + "0" * 150}
    (folder / f"{name}.json").write_text(json.dumps({"study": name, "asked": len(points), **head, "points": points}))


CHOSEN = {
    "recipe": "hadamard, residual",
    "kv": {
        f"blocks.{layer}.{axis}": {"mean": True, "basis": "hadamard", "radix": 2, "range": full, "residual": {}}
        for layer, full in ((0, 0.7), (1, 0.9))
        for axis in "KV"
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K and V of ViT-S at three of its noise levels, SmolLM2 on one text, two measured cells, and nothing else."""
    folder = tmp_path_factory.mktemp("results")
    idle = {"recipe": "none", "kv": {}}
    kv = [
        *(row("nothing", gamma, hits(mean)) for gamma, mean in ((0, 0.898), (3, 0.5), (5, 0.2), (7, 0.1))),
        row("same cells", 0, hits(0.898, chosen={**idle, "clips": {}})),
        row("same cells", 3, hits(0.898, chosen={**CHOSEN, "clips": {}})),
        *(row("same cells", gamma, hits(mean)) for gamma, mean in ((4, 0.87), (5, 0.89), (7, 0.85))),
        row("twice the cells", 5, hits(0.9)),
    ]
    write(folder, "vit_s_kv", kv)
    text = [
        *(row("nothing", gamma, perplexity(1 + gamma)) for gamma in (1, 2, 3)),
        row("same cells, 4 first tokens", 1, perplexity(1.01)),
        row("same cells, 4 first tokens", 2, perplexity(1.04, digital_tokens=0.1)),
        row("same cells, 4 first tokens", 3, perplexity(1.2)),
        row("same cells", 1, perplexity(1.03)),
        row("twice the cells, 4 first tokens", 1, perplexity(1.005, chips=2)),
    ]
    write(folder, "smollm2_news", text, software_left_out=[48.0 + number for number in range(8)])
    measured = {"kind": "polynomial", "c0": 1e-6}
    cells = [row(f"{cell}, K and V: {method}", 1, hits(mean)) for cell, method, mean in
             (("HERMES", "nothing", 0.3), ("HERMES", "same cells", 0.89), ("NeuRRAM", "same cells", 0.8))]  # fmt: skip
    for cell in cells:
        cell["write_noise"] = {"projection": None, "key": measured, "value": measured}
    write(folder, "vit_s_cells", cells)
    write(folder, "vit_s_readback", [row("same cells", 5, hits(0.89)), row("same cells, 6 bits", 5, hits(0.88))])
    return folder


def test_every_study_can_be_read_and_its_labels_are_those_of_the_page(scripts: Scripts) -> None:
    files = {file.stem: file for file in (FOLDER / "studies").glob("*.toml")}
    assert set(files) == set(scripts.methods.STUDIES)
    labels: dict[str, set[str]] = {}
    for name, file in files.items():
        document = catalog.read(file)
        sweeps = read_sweeps(document["sweep"])
        short = [{"label": one.label, **{path: list(values[:1]) for path, values in one.axes}} for one in sweeps]
        points = make_study({**document, "sweep": short}, folder=file.parent).points
        assert len(points) == len(sweeps), name
        labels[name] = {sweep.label for sweep in sweeps}
        rows = [(sweep.label, repr(values)) for sweep in sweeps for values in sweep.sets()]
        assert len(set(rows)) == len(rows), name
    plain = {name: found for name, found in labels.items() if name not in ("vit_s_readback", "vit_s_cells")}
    assert all(found <= set(scripts.methods.TITLES) for found in plain.values())
    assert all({"nothing", "same cells", "twice the cells"} <= found for found in plain.values())
    asked = {(demand.study, demand.method) for demand in scripts.judging.DEMANDS}
    assert all(method in labels[study] for study, method in asked)
    assert all(": " in label for label in labels["vit_s_cells"])


def judged(scripts: Scripts, results: Path, what: str, strength: str) -> list[str]:
    """The cells of a row of the judged table behind its first two."""
    found = scripts.written_once.blocks(results)["judged"]
    (line,) = [line for line in found.splitlines() if line.startswith(f"| {what} | {strength} |")]
    return [cell.strip() for cell in line.split("|")[3:-1]]


def test_a_demand_holds_if_the_far_end_of_the_interval_does(scripts: Scripts, results: Path) -> None:
    allowed, difference, far, verdict, *costs = judged(scripts, results, "ViT-S, K and V, same cells", "up to 0.6")
    # Chips agree, so only samples count: 3 of 1,500 differ, sd 0.0447, t(1499) = 1.962.
    assert (allowed, difference, far, verdict) == ("1.5 points", "-0.2 [-0.4, +0.0]", "-0.4", "**met**")
    assert costs == ["+0 %", "+10 %", "+0 %", "+0 %"]


def test_the_worst_noise_up_to_the_limit_is_judged(scripts: Scripts, results: Path) -> None:
    _, difference, far, verdict, *_ = judged(scripts, results, "ViT-S, K and V, same cells", "up to 1")
    assert (difference, far) == ("-3.0 [-3.9, -2.1] (at 0.8)", "-3.9")
    assert verdict == "**missed by 1.9**"
    _, difference, _, _, *_ = judged(scripts, results, "ViT-S, K and V, same cells", "up to 1.4")
    assert difference.startswith("-5.0 [")


def test_a_row_without_the_noise_of_its_limit_is_missing(scripts: Scripts, results: Path) -> None:
    _, difference, *rest = judged(scripts, results, "ViT-S, K and V, twice the cells", "up to 1.4")
    assert difference == "not measured yet"
    assert set(rest) == {"-"}
    assert judged(scripts, results, "ViT-S, all operands, same cells", "0.7")[1] == "not measured yet"


def test_perplexities_are_judged_by_their_ratio_on_each_window(scripts: Scripts, results: Path) -> None:
    what = "SmolLM2, news, same cells, 4 first tokens digital"
    allowed, difference, _, verdict, *_ = judged(scripts, results, what, "0.2")
    both = "+1.0 % [+1.0, +1.0]; no digital tokens: +3.0 % [+3.0, +3.0]"
    assert (allowed, difference, verdict) == ("2 %", both, "**met**")
    assert judged(scripts, results, what, "0.4")[3] == "**missed: 10.0 % of the tokens are digital**"
    assert judged(scripts, results, what, "0.6")[3] == "**missed by 5.0**"
    assert judged(scripts, results, what, "0.6")[1].endswith("; no digital tokens: not measured yet")


def test_too_few_chips_are_named(scripts: Scripts, results: Path) -> None:
    verdict = judged(scripts, results, "SmolLM2, news, twice the cells, 4 first tokens digital", "0.2")[3]
    assert verdict == "**met**, on 2 chips and 8 windows instead of 5 and 8"


def test_what_happens_without_noise_is_told(scripts: Scripts, results: Path, tmp_path: Path) -> None:
    text = scripts.written_once.blocks(results)["judged"]
    assert "- ViT-S classifier, K and V noisy, no noise: nothing is done; difference from software -0.2 [" in text
    points = [row("nothing", 0, hits(0.898)), row("same cells", 0, hits(0.895))]
    write(tmp_path, "vit_s_kv", points)
    assert "something is done by same cells" in scripts.written_once.blocks(tmp_path)["judged"]


def test_the_answer_is_computed(scripts: Scripts, results: Path) -> None:
    text = scripts.written_once.blocks(results)["answer"]
    assert "At γσ = 0.6 / 1 / 1.4 the ViT-S classifier is -0.2 / -1.0 / -5.0 points" in text
    assert "its software accuracy of 90.0 %" in text
    assert "? / +0.0 / ? points with twice the cells" in text
    assert "Unprotected it reaches 50.0 / 20.0 / 10.0 %" in text
    assert "**All operands, static weights included, no write verified.** Not measured yet." in text
    assert "changes by +1.0 / +4.0 / +20.0 % with the same cells and the first 4 tokens digital" in text
    good, measured, asked = scripts.judging.met({name: scripts.methods.curves(name, results) for name in
                                                 scripts.methods.STUDIES})  # fmt: skip
    assert f"Of {asked} differences that were set beforehand, {measured} are measured, and {good} of them hold." in text
    assert (good, measured, asked) == (2, 7, 22)


def test_tables_show_differences_from_software_and_costs(scripts: Scripts, results: Path) -> None:
    found = scripts.written_once.blocks(results)
    assert "| no mitigation | 89.8 (-0.2 [-0.4, +0.0]) | 50.0 (-40.0 [-42.5, -37.5]) | - |" in found["vit_s_kv"]
    assert "| | γσ = 0 | γσ = 0.6 | γσ = 0.8 | γσ = 1 | γσ = 1.4 |" in found["vit_s_kv"]
    assert "| read back, same cells | 89.0 (-1.0 [-1.5, -0.5]) |" in found["vit_s_readback"]
    assert "| same cells, 6 bits | 88.0 (" in found["vit_s_readback"]
    assert "| | HERMES, K and V | NeuRRAM, K and V |" in found["vit_s_cells"]
    assert "| no mitigation | 30.0 (-60.0 [-62.5, -57.5]) | - |" in found["vit_s_cells"]
    assert "| read back, same cells | -1.0 [-1.5, -0.5] | +0 % | +10 % | +0 % | +0 % | 100 |" in found["cost"]
    assert "Unprotected a pass takes 1 ms, 2 mJ, 100 mm² and 2 pulses of the most worn cell:" in found["cost"]
    assert "ViT-S classifier, all operands noisy: not measured yet." in found["cost"]
    assert found["fashion_vit"] == "*Not measured yet.*"


def test_choices_are_told_in_words(scripts: Scripts, results: Path) -> None:
    text = scripts.written_once.blocks(results)["choices"]
    assert text == (
        "- **ViT-S classifier, K and V noisy; read back, same cells**, γσ = 0.6: `hadamard, residual`; K: mean "
        "removed, hadamard, radix 2, range 0.7 to 0.9, read back; V: mean removed, hadamard, radix 2, range 0.7 to "
        "0.9, read back."
    )


def test_nothing_measured_is_said_everywhere(scripts: Scripts, tmp_path: Path) -> None:
    found = scripts.written_once.blocks(tmp_path)
    whole = [text for name, text in found.items() if name not in ("answer", "judged", "cost")]
    assert set(whole) == {"*Not measured yet.*"}
    assert found["judged"].count("not measured yet") == len(scripts.judging.DEMANDS)
    assert found["answer"].count("Not measured yet.") == 3


@pytest.mark.slow
def test_all_figures_are_drawn_with_and_without_results(scripts: Scripts, results: Path, tmp_path: Path) -> None:
    for folder in (results, tmp_path):
        files = scripts.written_once.draw_all(scripts.drawing.DRAWN, folder, tmp_path / "figures", "written_once")
        assert {file.stem for file in files} == {f"written_once_{name}" for name in scripts.drawing.DRAWN}
        assert all(file.stat().st_size > 1000 for file in files)


def test_the_front_joins_what_no_other_method_beats(scripts: Scripts) -> None:
    points = [(1.0, 40.0), (1.1, 2.0), (1.2, 3.0), (1.0, 50.0), (2.0, 1.0)]
    assert scripts.drawing.front(points) == [(1.0, 40.0), (1.1, 2.0), (2.0, 1.0)]


def test_looks_tell_methods_apart(scripts: Scripts) -> None:
    looks = scripts.drawing.LOOKS
    assert set(looks) == set(scripts.methods.TITLES)
    assert len({(look.color, look.marker, look.style) for look in looks.values()}) == len(looks)


def test_the_page_in_the_documentation_is_made_of_the_stored_results(scripts: Scripts) -> None:
    text = (FOLDER.parents[1] / "docs" / "rescue.md").read_text(encoding="utf-8")
    found = scripts.written_once.blocks(FOLDER / "results")
    assert scripts.written_once.filled("rescue.md", text, found) == text, (
        "run reproductions/written_once/written_once.py"
    )
    assert all(f"<!-- {name} -->" in text for name in found)
    with pytest.raises(BadInput, match=r"rescue\.md: marker 'odd' is unknown"):
        scripts.written_once.filled("rescue.md", "<!-- odd -->\n<!-- end odd -->", found)
