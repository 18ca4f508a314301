"""A study file becomes checked points; whatever is wrong with it becomes one line."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.hardware.spec import CrossbarEngine
from ohmformer.mitigation.spec import KVClip
from ohmformer.study.cost import make_costs
from ohmformer.study.read_study import make_study, make_whole, read_study
from ohmformer.study.spec import Settings

GAMMA = "hardware.attention.array.cell.write_noise.gamma"
TEXT = """
name = "K/V write noise"
seed = 0
[model]
source = "bundled:fashion-vit"
[task]
source = "bundled:fashion-mnist"
limit = 1000
[hardware]
base = "clipformer_tcad_2024"
"attention.array.cell.write_noise.gamma" = 5
[mitigation]
clip = { alpha = 2.0, beta = 0.25 }
[simulation]
level = "noise"
[trials]
chips = 10
[sweep]
"hardware.attention.array.cell.write_noise.gamma" = [0, 1, 2]
"mitigation.clip" = ["none", { alpha = 2.0, beta = 0.25 }]
"""
NO_SWEEP = TEXT.partition("[sweep]")[0]

WRONG = {
    "negative seed": ("seed = 0", "seed = -1", "seed = -1", ">= 0"),
    "unknown section": ("seed = 0", "sead = 0", "'sead'", "did you mean 'seed'"),
    "a source that is not text": ('"bundled:fashion-vit"', "3", "model.source = 3", "quotes"),
    "no samples": ("limit = 1000", "limit = 0", "task.limit = 0", ">= 1"),
    "unknown key": ("limit = 1000", "limits = 0", "task.limits", "did you mean 'limit'"),
    "unknown preset": ('"clipformer_tcad_2024"', '"clipformer"', "hardware.base = 'clipformer'", "did you mean"),
    "no hardware": ('base = "clipformer_tcad_2024"', "", "hardware.base", "clipformer_tcad_2024"),
    "negative gamma that a sweep hides": ('gamma" = 5', 'gamma" = -5', f"{GAMMA} = -5", ">= 0"),
    "unknown field": ('gamma" = 5', 'gama" = 5', "write_noise.gama", "did you mean 'gamma'"),
    "negative sigma": ('gamma" = 5', 'sigma" = -0.1', "write_noise.sigma = -0.1", ">= 0"),
    "no bits": ('attention.array.cell.write_noise.gamma" = 5', 'attention.array.bits" = 0', "array.bits = 0", ">= 1"),
    "bare quantity": ('write_noise.gamma" = 5', 'g_max" = 1e-5', "cell.g_max = 1e-05", "'1e-05 S'"),
    "wrong unit": ('write_noise.gamma" = 5', 'g_max" = "2 V"', "cell.g_max = '2 V'", "S is expected"),
    "negative alpha": ("clip = { alpha = 2.0", "clip = { alpha = -2.0", "mitigation.clip.alpha = -2.0", ">= 0"),
    "unknown field of a clip": ("clip = { alpha", "clip = { alfa", "mitigation.clip.alfa", "did you mean 'alpha'"),
    "unknown clip": ('["none"', '["non"', "mitigation.clip = 'non'", "'calibrated'"),
    "clip that leaves nothing": ("0.25 }]", "0.005 }]", "beta = 0.005", "raise beta"),
    "unknown level": ('"noise"', '"nose"', "simulation.level = 'nose'", "did you mean 'noise'"),
    "no chips": ("chips = 10", "chips = 0", "trials.chips = 0", ">= 1"),
    "empty axis": ("[0, 1, 2]", "[]", f"sweep.{GAMMA} = []", "at least one value"),
    "wrong value in an axis": ("[0, 1, 2]", '[0, "x"]', f"{GAMMA} = 'x'", "must be a number"),
    "axis of an unknown section": ('"mitigation.clip" =', '"mitgation.clip" =', "'mitgation'", "did you mean"),
    "axis through a number": ('"mitigation.clip" =', '"seed.x" =', "seed.x = 'none'", "as a whole"),
    "no name": ("name = ", "nam = ", "name", "is missing"),
}


@pytest.mark.parametrize(("old", "new", "place", "remedy"), WRONG.values(), ids=WRONG)
def test_every_mistake_is_one_line_with_file_path_value_and_remedy(old: str, new: str, place: str, remedy: str) -> None:
    assert old in TEXT
    with pytest.raises(BadInput) as caught:
        make_study(tomllib.loads(TEXT.replace(old, new, 1)), where="study.toml")
    line = str(caught.value)
    assert line.startswith("study.toml: ")
    assert place in line
    assert remedy in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "place"),
    {
        "no equals sign": ("trials.chips", "--set trials.chips"),
        "wrong type": ("trials.chips=many", "trials.chips = 'many'"),
        "unknown section": ("trial.chips=3", "trial.chips = 3"),
        "unknown preset": ("hardware.base=nope", "hardware.base = 'nope'"),
        "what a sweep would overwrite": ("mitigation.clip.beta=0.5", "--set mitigation.clip.beta"),
    }.values(),
)
def test_a_wrong_change_is_one_line(text: str, place: str) -> None:
    with pytest.raises(BadInput) as caught:
        make_study(tomllib.loads(TEXT), [text], where="study.toml")
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


def gammas(settings: Settings) -> tuple[float, ...]:
    engines = (settings.hardware.projection, settings.hardware.attention.key, settings.hardware.attention.value)
    assert all(isinstance(engine, CrossbarEngine) for engine in engines)
    return tuple(engine.array.cell.write_noise.gamma for engine in engines)  # type: ignore[union-attr]


def test_a_sweep_is_the_product_of_its_axes_in_the_order_of_the_file() -> None:
    points = make_study(tomllib.loads(TEXT)).points
    clip = KVClip(alpha=2.0, beta=0.25)
    assert [(gammas(point.settings)[1], point.settings.mitigation.clip) for point in points] == [
        (0, "none"), (0, clip), (1, "none"), (1, clip), (2, "none"), (2, clip),
    ]  # fmt: skip
    assert points[1].set == {GAMMA: 0, "mitigation.clip": {"alpha": 2.0, "beta": 0.25}}


def test_a_study_without_a_sweep_is_one_point() -> None:
    (point,) = make_study(tomllib.loads(NO_SWEEP)).points
    assert point.set == {}
    assert gammas(point.settings) == (1, 5, 5)
    assert point.settings.trials.chips == 10


def test_sweeps_of_their_own_follow_one_another() -> None:
    text = (
        NO_SWEEP
        + f"""
[[sweep]]
"{GAMMA}" = [0, 1]
[[sweep]]
label = "V alone"
"hardware.attention.key.array.cell.write_noise.gamma" = 0
"hardware.attention.value.array.cell.write_noise.gamma" = 7
"""
    )
    points = make_study(tomllib.loads(text)).points
    assert [point.label for point in points] == ["", "", "V alone"]
    assert [gammas(point.settings) for point in points] == [(1, 0, 0), (1, 1, 1), (1, 0, 7)]


def test_the_swept_value_wins_over_a_wider_path_in_the_hardware() -> None:
    narrow = "hardware.attention.key.array.cell.write_noise.gamma"
    (point,) = make_study(tomllib.loads(f'{NO_SWEEP}[sweep]\n"{narrow}" = 3')).points
    assert gammas(point.settings) == (1, 3, 5)


def test_dotted_keys_mean_the_same_with_and_without_quotes() -> None:
    bare = TEXT.replace('"attention.array.cell.write_noise.gamma"', "attention.array.cell.write_noise.gamma")
    bare = bare.replace(f'"{GAMMA}"', GAMMA).replace('"mitigation.clip"', "mitigation.clip")
    assert bare != TEXT
    assert make_study(tomllib.loads(bare)) == make_study(tomllib.loads(TEXT))


def test_changes_reach_settings_and_sweeps() -> None:
    points = make_study(tomllib.loads(TEXT), ["trials.chips=2", f"{GAMMA}=[6, 7]", "mitigation.clip=calibrated"]).points
    assert {point.settings.trials.chips for point in points} == {2}
    assert [gammas(point.settings)[1] for point in points] == [6, 7]
    assert {point.settings.mitigation.clip for point in points} == {"calibrated"}


def test_a_hardware_file_is_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[accelerator]\nbase = "clipformer_tcad_2024"\n"attention.array.bits" = 6\n')
    (tmp_path / "study.toml").write_text(TEXT.replace('"clipformer_tcad_2024"', '"mine.toml"'))
    study = read_study(str(tmp_path / "study.toml"))
    assert study.points[0].settings.hardware.attention.array.bits == 6


def test_a_missing_file_and_a_broken_one_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.toml: no such file"):
        read_study("nowhere.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(BadInput, match=r"broken\.toml: is not valid TOML"):
        read_study(str(tmp_path / "broken.toml"))


def test_the_shipped_demo_has_the_points_that_it_promises() -> None:
    points = read_study("demo").points
    main = [point for point in points if not point.label]
    assert {gammas(point.settings)[1:] for point in main} == {(g, g) for g in range(8)}
    assert {gammas(point.settings)[0] for point in main} == {1}
    assert len(main) == 8 * 4
    noisy = [tuple(g > 0 for g in gammas(point.settings)) for point in points if point.label]
    assert noisy == [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]


def test_reading_studies_needs_no_torch() -> None:
    reading = "from ohmformer.study.read_study import read_study; read_study('demo')"
    code = f"import sys; {reading}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LABELED = f"""
[[sweep]]
"{GAMMA}" = [0, 1]
[[sweep]]
label = "high"
"{GAMMA}" = 7
"hardware.projection.array.cell.write_noise.gamma" = 0
"""


def test_a_labeled_sweep_stays_what_it_is_called() -> None:
    points = make_study(tomllib.loads(NO_SWEEP + LABELED), [f"{GAMMA}=4"]).points
    assert [(point.label, gammas(point.settings)[1]) for point in points] == [("", 4), ("high", 7)]


def test_what_only_labeled_sweeps_set_cannot_be_changed_unnoticed() -> None:
    change = "hardware.projection.array.cell.write_noise.gamma=4"
    with pytest.raises(
        BadInput,
        match=r"study\.toml: --set hardware\.projection.*a labeled sweep sets this path; edit the sweep in the file",
    ):
        make_study(tomllib.loads(NO_SWEEP + LABELED), [change], where="study.toml")


def test_a_clip_is_named_by_its_path() -> None:
    with pytest.raises(BadInput, match=r"^study: mitigation\.clip\.beta = 0\.005"):
        make_study(tomllib.loads(TEXT.replace("0.25 }]", "0.005 }]")))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("{ rotate = 3 }", "mitigation.weights.rotate = 3"),
        ('{ scale = "head" }', "mitigation.weights.scale = 'head'"),
        ("{ percentile = 0 }", "mitigation.weights.percentile = 0"),
        ("{ rotates = true }", "did you mean 'rotate'"),
    ],
)
def test_a_wrong_conditioning_of_weights_is_one_line(weights: str, words: str) -> None:
    text = TEXT.replace("[mitigation]\n", f"[mitigation]\nweights = {weights}\n")
    with pytest.raises(BadInput) as caught:
        make_study(tomllib.loads(text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_that_is_too_large_is_refused_at_once() -> None:
    paths = ("simulation.batch", "seed", "trials.chips", "model.batch")
    axes = "".join(f'"{path}" = {list(range(1, 400))}\n' for path in paths)
    with pytest.raises(BadInput, match=r"^study: sweep: makes more than 100,000 points"):
        make_study(tomllib.loads(f"{NO_SWEEP}[sweep]\n{axes}"))
    with pytest.raises(BadInput, match=r"sweep: makes more than 100,000 points"):
        make_study(tomllib.loads(f"{NO_SWEEP}[sweep]\nseed = [0]"), [f"seed={list(range(100_001))}"])


@pytest.mark.parametrize(
    "change",
    [
        "simulation.levle=5", "simulation.level=nose", "trials.chip=3", "trials.chips=0", "seed=-1",
        "dataflow.kind=x", "cost.rate=20 V", "cost.rat=3", "model.steps=0", "model.stepp=1", "model.phase=x",
        "mitigation.klip=none", "task.limt=3", "cost=3", "dataflow=[]", "simulation=x", "rules=3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("half", [make_study, make_costs], ids=["accuracy", "cost"])
def test_each_half_refuses_what_is_wrong_anywhere(half: Callable[..., Any], change: str) -> None:
    for text in (TEXT, NO_SWEEP):
        with pytest.raises(BadInput, match=rf"^study: {re.escape(change.split('=')[0])}") as caught:
            half(tomllib.loads(text), [change])
        assert "\n" not in str(caught.value)


def test_own_values_need_not_go_together_with_those_of_the_sweep() -> None:
    bits, levels = "attention.array.bits_per_cell", "attention.array.levels"
    sweep = {f"hardware.{bits}": [4], f"hardware.{levels}": [12]}
    document = {"name": "x", "model": {"source": "shapes:bert-base"}, "sweep": [sweep]}
    hardware = {"base": "clipformer_tcad_2024", "attention.array.bits": 13}

    def arrays(**own: object) -> list[tuple[int, int]]:
        points = make_whole({**document, "hardware": {**hardware, **own}}).points
        found = [point.settings.hardware.attention.key.array for point in points]
        return [(array.bits_per_cell, array.levels) for array in found]

    assert arrays(**{bits: 3}) == [(4, 12)]
    with pytest.raises(BadInput, match=r"hardware\.attention\.array\.bits_per_cell = 'three'"):
        arrays(**{bits: "three"})


def test_sections_that_are_shared_are_those_of_each_point_alone() -> None:
    whole = make_whole(
        tomllib.loads(NO_SWEEP + LABELED), ["mitigation.clip=calibrated", "cost.spare=0.5", "model.batch=2"]
    )
    for point in whole.points:
        changes = [f"{path}={value}" for path, value in point.set.items()]
        (alone,) = make_whole(
            {**tomllib.loads(NO_SWEEP)}, ["mitigation.clip=calibrated", "cost.spare=0.5", "model.batch=2", *changes]
        ).points
        assert alone.settings == point.settings
        assert alone.settings.accuracy().canonical() == point.settings.accuracy().canonical()
    assert whole.points[0].settings.model is whole.points[-1].settings.model
