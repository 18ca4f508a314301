"""Tables, sentences and figures say what the results say."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from rich.console import Console

from ohmformer.report.caveats import caveats
from ohmformer.report.figure import MANY, _legend_corner, draw, save_figure
from ohmformer.report.table import capture_lines, study_tables
from ohmformer.report.verdict import Gain, clip_verdicts, gain
from ohmformer.report.view import MOST_ROWS, more_rows, view
from ohmformer.study.results.spec import Accuracy, Capture, StudyResults
from tests.report.results import DEMO, FIXED, GAMMA, changed, point, study, swept


def text(document: StudyResults) -> str:
    output = StringIO()
    Console(file=output, width=160).print(study_tables(document))
    return output.getvalue()


def test_the_table_holds_every_entry_with_its_interval() -> None:
    found = text(DEMO)
    rows = {line.split("│")[1].strip(): line for line in found.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["6"].split("│")[1:-1]] == [
        "6", "1.2", "40.0 [35.0, 45.0]", "60.0 [55.0, 65.0]", "70.0 [65.0, 75.0]",
    ]  # fmt: skip
    caption = " ".join(found.split())
    assert "software: 90.0 %" in caption
    assert "2 chips, 200 samples, level array" in caption
    assert "85.0 [80.0, 90.0] │ 75.0 [70.0, 80.0]" in found


def test_the_table_shows_what_was_chosen() -> None:
    assert "50.0 [45.0, 55.0] (balanced)" in text(study(point(0.5, recipe="balanced")))


def test_many_bars_stand_below_one_another() -> None:
    bars = [point(i / 10, label=f"bar {i}") for i in range(1, 8)]
    lines = [line for line in text(study(*bars)).splitlines() if "bar " in line]
    assert len(lines) == 7


@pytest.mark.parametrize("labeled", [False, True])
def test_a_long_table_ends_with_a_line_on_the_rest(labeled: bool) -> None:
    count = MOST_ROWS + 1_300

    def shown(points: int) -> str:
        names = [f"cell {number}" if labeled else "" for number in range(points)]
        return text(study(*(point(0.5, label=name, **{GAMMA: n / 100}) for n, name in enumerate(names))))

    assert "more row" not in shown(MOST_ROWS)
    assert "1 more row is in results.json" in shown(MOST_ROWS + 1)
    long = shown(count)
    assert "1,300 more rows are in results.json; ohmformer export FOLDER -o FILE.csv writes all" in long
    assert long.count("50.0 [") == MOST_ROWS


def test_a_long_table_of_what_no_folder_holds_names_the_option_that_writes_it() -> None:
    assert more_rows(MOST_ROWS + 3, stored=False) == ["3 more rows are not shown; --json FILE writes all points"]
    assert more_rows(MOST_ROWS, stored=False) == []


def test_many_points_are_a_line_with_a_band_of_their_intervals() -> None:
    few, many = (draw(swept({"none": {x / 100: 0.5 for x in range(count)}})) for count in (MANY, MANY + 1))
    assert [len(figure.axes[0].containers) for figure in (few, many)] == [1, 0]
    (band,) = many.axes[0].collections
    low, high = point(0.5).accuracy.ci95
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((100 * low, 100 * high))
    assert len(many.axes[0].lines[-1].get_xdata()) == MANY + 1


def test_many_bars_are_a_band_too() -> None:
    bars = [point(0.5, label=f"cell {number}") for number in range(MANY + 1)]
    (ax,) = draw(study(*bars)).axes
    assert (len(ax.patches), len(ax.collections)) == (0, 1)
    assert ax.get_xlabel() == "points, in the order of results.json"


def paired(mean: float, reference: float) -> Gain:
    return gain(3.0, point(mean).accuracy, point(reference).accuracy)


def test_a_gain_is_paired() -> None:
    better = paired(0.80, 0.75)
    assert better.mean == pytest.approx(0.05)
    assert better.verdict == "gains", "ten of two hundred samples changed, all for the better"
    assert paired(0.75, 0.80).verdict == "loses"
    assert paired(0.755, 0.75).verdict == "undecided"
    assert paired(0.75, 0.75).mean == 0


def test_a_gain_of_a_whole_metric_counts_samples_by_what_was_left_out() -> None:
    def perplexity(chips: list[float], left_out: list[float] | None) -> Accuracy:
        mean = sum(chips) / len(chips)
        values = {"software": 9.0, "mean": mean, "ci95": (mean, mean), "chips": chips, "samples": 3}
        return Accuracy.model_validate({"metric": "perplexity", "level": "array", **values, "left_out": left_out})

    reference = perplexity([50.0, 50.0], [48.0, 52.0, 50.0])
    sure = gain(1.0, perplexity([40.0, 40.0], [38.0, 42.0, 40.0]), reference)
    assert (sure.mean, sure.low, sure.high, sure.verdict) == (10.0, 10.0, 10.0, "gains")
    by_one_window = gain(1.0, perplexity([40.0, 40.0], [48.0, 52.0, 20.0]), reference)
    assert by_one_window.low < 0 < by_one_window.high
    assert by_one_window.verdict == "undecided"
    older = gain(1.0, perplexity([40.0, 40.1], None), reference)
    assert older.low > 0
    assert older.verdict == "undecided", "nothing is known of other windows"


@pytest.mark.parametrize(
    ("metric", "chips", "hits", "others", "x"),
    [
        ("top1", 2, [2], [0], 1.0),
        ("top1", 1, [1], [0], 0.0),
        ("top1", 2, [2, 2], [0, 0], 1.0),
        ("top1", 2, [2] * 5, [0] * 5, 1.0),
        ("top1", 1, [1] * 50, [1] * 20 + [0] * 30, 1.0),
        ("fidelity", 2, [1.8], [1.2], 1.0),
        ("fidelity", 2, [1.8, 1.8], [1.2, 1.2], 1.0),
    ],
)
def test_a_gain_from_too_few_chips_or_samples_is_undecided(
    metric: str, chips: int, hits: list[float], others: list[float], x: float
) -> None:
    def accuracy(sums: list[float]) -> Accuracy:
        mean = sum(sums) / chips / len(sums)
        values = {"software": 1.0, "mean": mean, "ci95": (0.0, 1.0), "chips": [mean] * chips, "samples": len(sums)}
        return Accuracy.model_validate({"metric": metric, "level": "array", **values, "hits": sums})

    found = gain(x, accuracy(hits), accuracy(others))
    assert (found.low, found.high, found.verdict) == (-np.inf, np.inf, "undecided")


@pytest.mark.parametrize("left_out", [[3.0], [3.0, 3.0], [3.0] * 4])
def test_a_gain_from_jackknife_values_without_spread_is_undecided(left_out: list[float]) -> None:
    def accuracy(value: float) -> Accuracy:
        values = {"software": 1.0, "mean": value, "ci95": (value, value), "chips": [value] * 2, "samples": 4}
        left = [value for _ in left_out]
        return Accuracy.model_validate({"metric": "perplexity", "level": "array", **values, "left_out": left})

    assert gain(1.0, accuracy(2.0), accuracy(3.0)).verdict == "undecided"


def test_the_verdict_says_where_chips_are_too_few() -> None:
    points = []
    for found in DEMO.points:
        hits = [count // 2 for count in found.accuracy.score_sums or ()]
        points.append(changed(changed(found, "accuracy.hits", hits), "accuracy.chips", [found.accuracy.mean]))
    for sentence in clip_verdicts(study(*points)):
        assert "At γ = 3, 6 there are too few chips or samples to show how much they vary." in sentence


def test_the_verdict_says_where_clipping_gains_and_loses_and_why() -> None:
    fixed, calibrated = clip_verdicts(DEMO)
    assert "ClipFormer (2, 0.25), against no mitigation: loses at γ = 0 (most at 0: -20.0 points" in fixed
    assert "no certain difference at γ = 3; gains at γ = 6 (most at 6: +20.0 points" in fixed
    assert "without noise, makes -20.0 points" in fixed
    assert "changes accuracy by -50.0 points without clipping and by -10.0 with it" in fixed
    assert "loses nowhere" in calibrated
    assert "Why" not in calibrated


def test_the_verdict_on_a_clip_that_never_helps() -> None:
    (sentence,) = clip_verdicts(swept({"none": {0: 0.9, 6: 0.8}, FIXED: {0: 0.5, 6: 0.6}}))
    assert "loses at γ = 0, 6 (most at 0: -40.0 points" in sentence
    assert "gains nowhere" in sentence
    assert "by -10.0 points without clipping and by +10.0 with it" in sentence


def test_without_an_unclipped_reference_there_is_no_verdict() -> None:
    assert clip_verdicts(swept({FIXED: {0: 0.5, 6: 0.6}})) == []


def lines_of(ax: Axes) -> dict[str, list[float]]:
    handles, labels = ax.get_legend_handles_labels()
    found = {}
    for handle, label in zip(handles, labels, strict=True):
        line = handle[0] if isinstance(handle, tuple) else handle
        found[label] = [round(float(y), 6) for y in line.get_ydata()]
    return found


@pytest.mark.parametrize(
    ("heights", "corner"),
    [
        ({0: 0.9, 3: 0.8, 6: 0.2}, "lower left"),
        ({0: 0.1, 3: 0.8, 6: 0.9}, "lower right"),
        ({0: 0.6, 6: 0.8}, "lower left"),
    ],
)  # fmt: skip
def test_the_legend_stands_where_no_curve_is(heights: dict[int, float], corner: str) -> None:
    assert _legend_corner(view(swept({"none": heights}))) == corner


def test_the_figure_draws_the_numbers_of_the_results() -> None:
    lines, bars = draw(DEMO).axes[:2]
    assert lines_of(lines) == {
        "software": [90, 90],
        "no mitigation": [90, 80, 40],
        "ClipFormer (2, 0.25)": [70, 80, 60],
        "ClipFormer, calibrated": [90, 85, 70],
    }
    assert [round(patch.get_height(), 6) for patch in bars.patches] == [85, 75]
    assert lines.get_xlabel() == "write noise γ"
    assert "accuracy" in lines.get_ylabel()
    (top,) = lines.child_axes
    assert "γσ" in top.get_xlabel()


@pytest.mark.parametrize("document", [DEMO, study(*DEMO.points[:2]), study(*DEMO.points[-1:])])
@pytest.mark.slow
def test_figures_are_written_and_repeat(document: StudyResults, tmp_path: Path) -> None:
    names = [file.name for file in save_figure(document, tmp_path)]
    assert names == ["figure.svg", "figure.png"]
    first = (tmp_path / "figure.svg").read_bytes()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    save_figure(document, tmp_path)
    assert (tmp_path / "figure.svg").read_bytes() == first


def test_what_ran_where_is_said_once() -> None:
    (line,) = capture_lines(DEMO)
    assert "on crossbars: 3 x W, 1 Q K" in line
    assert "Digital: stem (Conv2d is not converted)" in line


def test_two_digital_products_of_a_module_are_counted() -> None:
    capture = Capture(crossbars={"x W": 1}, digital=("attn (by rule)", "attn (by rule)", "stem (by rule)"))
    point = DEMO.points[0].model_copy(update={"capture": capture})
    (line,) = capture_lines(DEMO.model_copy(update={"points": (point,)}))
    assert "Digital: 2 products of attn (by rule), stem (by rule), beside" in line


def test_an_extrapolation_is_said_and_shaded() -> None:
    (sentence,) = caveats(DEMO)
    assert "an extrapolation: 6 of 11 points" in sentence
    assert "γσ up to 1.2 in K, 1.2 in V" in sentence
    assert [text.get_text() for text in draw(DEMO).axes[0].texts] == ["extrapolation"]
    weak = swept({"none": {0: 0.9, 2: 0.8}})
    assert caveats(weak) == []
    assert not draw(weak).axes[0].texts


def test_other_noise_is_no_extrapolation() -> None:
    noise = {"projection": None, "key": {"kind": "proportional", "sigma": 3.0}, "value": None}
    assert caveats(study(changed(point(0.5), "write_noise", noise))) == []


def test_level_noise_says_what_it_leaves_out() -> None:
    document = study(changed(point(0.5), "accuracy.level", "noise"))
    assert caveats(document) == ["Level noise leaves converters and read noise out."]
    assert "leaves converters and read noise out" in draw(document).get_supxlabel()


def test_one_chip_is_marked() -> None:
    single = changed(changed(point(0.5), "accuracy.hits", [1, 0] * 100), "accuracy.chips", [0.5])
    document = study(single)
    marked = "one chip: intervals cover samples only"
    assert marked in " ".join(text(document).split())
    assert marked in " ".join(draw(document).get_supxlabel().split())
    assert marked not in " ".join(text(DEMO).split())


def test_the_caption_says_how_static_weights_are_written() -> None:
    weights = changed(point(0.5), "write_noise.projection", {"kind": "sqrt_range", "gamma": 2, "sigma": 0.02})
    document = study(weights, notes=("σ of static weights 0.02 (assumed: write-verify)",))
    said = "static weights: γσ 0.04; σ of static weights 0.02 (assumed: write-verify)"
    assert said in " ".join(text(document).split())
    assert said in " ".join(draw(document).get_supxlabel().split())
