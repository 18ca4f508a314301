"""Studies of cost: what is read, what comes out, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.report.cost_table import compare_table
from ohmformer.schema import load
from ohmformer.study.compare_platforms import compared
from ohmformer.study.cost import make_costs, price, read_costs, study_costs
from ohmformer.study.read_study import locate_study, make_study
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.document import to_json
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.sweep import put

BASE: dict[str, Any] = {
    "name": "small",
    "model": {"source": "shapes:fashion-vit"},
    "hardware": {"base": "xformer_tvlsi_2023"},
    "dataflow": {"kind": "sequence_blocking", "block": 16},
}

WIDE = {"chip.network_max_load": 1000, "chip.buffer_bandwidth": "1000 TB/s"}
"""Links that are never overloaded, so that no note speaks of them."""


def one(**changes: Any) -> CostResult:
    (point,) = make_costs({**BASE, **changes}).points
    return price(point.settings)


def test_a_point_has_everything_that_readers_ask_for() -> None:
    cost = one()
    assert {"latency_s", "energy_J", "power_W", "area_m2", "lifetime_s", "throughput_per_s"} <= set(cost.model_dump())
    assert set(cost.energy_by.model_dump()) == {"component", "operation", "engine"}
    assert set(cost.utilization) == {"projection", "attention"}
    counts = {"arrays", "arrays_per_polarity", "cell_writes", "cell_reads", "activations", "adc_conversions"}
    assert counts <= set(cost.counts)
    assert cost.power_W == pytest.approx(cost.energy_J / cost.latency_s)
    assert cost.throughput_per_s == pytest.approx(1 / cost.latency_s)
    assert cost.lifetime.arrays == "shared"
    assert cost.lifetime.endurance == 1e16
    assert cost.lifetime.endurance_source.startswith("published, itrs2011")
    json.dumps(cost.model_dump(), allow_nan=False)


def test_what_has_no_end_is_null() -> None:
    cost = one(hardware={"base": "nvm_ideal"})
    assert cost.lifetime_s is None
    assert cost.lifetime.endurance is None
    json.dumps(cost.model_dump(), allow_nan=False)


def test_sweeps_and_sets() -> None:
    document = {**BASE, "sweep": {"dataflow.block": [8, 16], "hardware.attention.array.adc.bits": [4, 7]}}
    study = make_costs(document)
    assert [point.set["dataflow.block"] for point in study.points] == [8, 8, 16, 16]
    found = study_costs(study).points
    assert found[0].cost.energy_by.component["adc"] < found[1].cost.energy_by.component["adc"]
    assert len(make_costs(document, ["dataflow.block=8"]).points) == 2
    (point,) = make_costs(BASE, ["model.batch=3", "cost.rate=100 Hz", "cost.spare=0.5"]).points
    assert (point.settings.model.batch, point.settings.cost.rate, point.settings.cost.spare) == (3, 100.0, 0.5)


def test_steps_of_decoding_add_up() -> None:
    model = {"source": "shapes:gpt2", "phase": "decode", "context": 10}
    steps = [one(model={**model, "context": 10 + i}, hardware={"base": "nvm_ideal"}) for i in range(3)]
    all_of_them = one(model={**model, "steps": 3}, hardware={"base": "nvm_ideal"})
    for key in ("latency_s", "energy_J"):
        assert getattr(all_of_them, key) == pytest.approx(sum(getattr(step, key) for step in steps))
    assert all_of_them.throughput_per_s == pytest.approx(1 / all_of_them.latency_s)
    assert all_of_them.tokens_per_s == pytest.approx(3 / all_of_them.latency_s)
    assert all_of_them.counts["cell_writes"] == 3 * steps[0].counts["cell_writes"]
    assert all(share <= 1 for share in all_of_them.utilization.values())


def test_a_clip_saves_arrays_of_keys_and_values() -> None:
    hardware = {"base": "clipformer_tcad_2024_adc6"}
    full = one(hardware=hardware)
    less = one(hardware=hardware, mitigation={"clip": {"alpha": 2.0, "beta": 0.25}})
    assert less.counts["arrays"] < full.counts["arrays"]
    assert less.energy_J < full.energy_J


@pytest.mark.parametrize("name", catalog.entries("costs"))
def test_library_studies_of_cost_run(name: str) -> None:
    assert all(point.cost.latency_s > 0 for point in study_costs(read_costs(name)).points)


def test_the_same_file_serves_both_halves() -> None:
    model = {"source": "bundled:fashion-vit", "batch": 2}
    both = {**BASE, "model": model, "task": {"source": "bundled:fashion-mnist"}}
    assert make_study(both).points[0].settings.model.source == "bundled:fashion-vit"
    assert make_costs(both).points[0].settings.model.batch == 2
    study = read_costs("demo", ["hardware.attention.array.cell.write_noise.gamma=3"])
    assert study.points[0].settings.model.source == "bundled:fashion-vit"
    assert price(study.points[0].settings).counts["cell_writes"] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"source": "tables:vit"}}, "model.source = 'tables:vit': no such model"),
        ({"model": {"source": "tables:vit"}}, "hf:package:NAME/PATH, python:MODULE:FUNCTION, shapes:bert-base, "),
        ({"model": {"source": "bundled:vit"}}, "hf:package:NAME/PATH, python:MODULE:FUNCTION, shapes:bert-base, "),
        ({"model": {"source": "shape:gpt2"}}, "no such model; did you mean 'shapes:gpt2'?"),
        ({"model": {"source": "shapes:x.toml"}}, "model.source = 'shapes:x.toml': no such file; give the path of a"),
        ({"model": {"source": "gpt2"}}, "'gpt2': is a table of dimensions; write 'shapes:gpt2'"),
        ({"model": {"source": "shapes:gpt2", "phase": "decode", "seq_len": 5}}, "decoding makes one token at a time"),
        ({"model": {"source": "shapes:gpt2", "seq_len": 0}}, "model.seq_len = 0: must be >= 1"),
        ({"rules": {"blocks.*": "digital"}}, "rules: name modules of a real model, and 'shapes:fashion-vit' has none"),
        (
            {"model": {"source": "shapes:bert"}},
            "'shapes:bert': no such table of dimensions; did you mean 'shapes:bert-b",
        ),
        (
            {"hardware": {"base": "nvm_ideal"}, "mitigation": {"clip": {"alpha": 2.0, "beta": 0.25}}},
            "mitigation.clip: an 'offset' array stores zero",
        ),
        ({"hardware": {"base": "nvm_ideal", "projection.array": "generic_amplitude"}}, "projection.array.cost"),
        ({"hardware": {"base": "nvm_ideal", "chip.tiles": 3}}, "hardware.chip.tiles = 3: the model needs 13 tiles"),
        (
            {"hardware": {"base": "puma_asplos_2019", "attention.key.lanes": 8000, "chip.tiles": 100}},
            "; 8000 lanes, 32 per tile); raise it",
        ),
        (
            {"dataflow": {"kind": "blocks"}},
            "dataflow.kind = 'blocks': is not a kind; known: layer_overlap, layer_serial",
        ),
        ({"dataflow": {"kind": "sequence_blocking", "block": 0}}, "dataflow.block = 0: must be >= 1"),
        ({"model": {"source": "shapes:gpt2", "steps": 2}}, "model.steps = 2: only decoding has steps"),
        ({"hardware": {}}, "hardware.base: is missing; name one of: a100_sxm_40gb, "),
        ({"hardware": {"base": "generic_amplitude"}}, "hardware.chip: is missing"),
        ({"cost": {"rate": 100}}, "cost.rate = 100: has no unit; write '100 Hz'"),
        ({"costs": {}}, "unknown key 'costs'; did you mean 'cost'"),
        ({"name": ""}, "name: is missing"),
    ],
)
def test_bad_input_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        one(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def write(file: Path, **changes: Any) -> str:
    lines = []
    for section, table in {**BASE, **changes}.items():
        if isinstance(table, str):
            lines.insert(0, f"{section} = {json.dumps(table)}")
        else:
            lines += [f"[{section}]", *(f"{json.dumps(key)} = {toml(value)}" for key, value in table.items())]
    file.write_text("\n".join(lines))
    return str(file)


def test_a_table_of_dimensions_may_lie_beside_the_study(tmp_path: Path) -> None:
    table = '[shapes]\ntitle = "mine"\nkind = "decoder"\nlayers = 2\nwidth = 64\nheads = 4\nhidden = 128\ntokens = 16\n'
    (tmp_path / "mine.toml").write_text(table)
    study = read_costs(write(tmp_path / "study.toml", model={"source": "shapes:mine.toml"}))
    assert price(study.points[0].settings).counts["arrays"] > 0


@pytest.mark.slow
def test_platforms_are_compared_on_cost_alone_or_with_accuracy(tmp_path: Path) -> None:
    platforms = ["clipformer_tcad_2024", "gtx_1060"]
    alone = compared(write(tmp_path / "a.toml"), platforms)
    assert [point.set["hardware.base"] for point in alone.points] == platforms
    assert not any(point.accuracy for point in alone.points)
    task = {"source": "bundled:fashion-mnist", "limit": 10}
    both = write(
        tmp_path / "b.toml",
        model={"source": "bundled:fashion-vit"}, task=task, trials={"chips": 1}, simulation={"level": "noise"},
    )  # fmt: skip
    found = compared(both, platforms, out=tmp_path / "out")
    crossbars, gpu = (point.accuracy for point in found.points)
    assert gpu.mean == gpu.software == crossbars.software
    for key in ("counts", "area_m2", "latency_s"):
        assert getattr(found.points[0].cost, key) == getattr(alone.points[0].cost, key), "not the model's table"
    copy = tmp_path / "gpu.toml"
    copy.write_text('[accelerator]\nbase = "gtx_1060"\n')
    same = (["gtx_1060", " gtx_1060 "], ["gpu.toml", "gtx_1060", str(tmp_path / "." / "gpu.toml")])
    for names in same:
        with pytest.raises(BadInput, match=r"b.toml: --platforms: names .* twice.*; leave one of them out"):
            compared(both, names, out=tmp_path / "out")
    with pytest.raises(BadInput, match="--platforms: is missing or empty"):
        compared(both, [" "])
    with pytest.raises(BadInput, match=r"a.toml: hardware.base = 'gpu': is not among the accelerators of the library"):
        compared(str(tmp_path / "a.toml"), ["gpu"])


def test_platforms_that_cannot_have_the_clip_are_there_without_it(tmp_path: Path) -> None:
    platforms = ["clipformer_tcad_2024_adc8", "nvm_ideal", "xformer_tvlsi_2023", "gtx_1060"]
    study = {"model": {"source": "bundled:fashion-vit"}, "task": {"source": "bundled:fashion-mnist", "limit": 5}}
    few = {"trials": {"chips": 1}, "simulation": {"level": "noise"}}
    clip = {"alpha": 2.0, "beta": 0.25}
    file = write(tmp_path / "clip.toml", **study, **few)
    (tmp_path / "clip.toml").write_text(
        f"{Path(file).read_text()}\n[mitigation]\nclip = {{ alpha = 2.0, beta = 0.25 }}"
    )
    found = compared(file, platforms, out=tmp_path / "out", workers=1)
    assert all(point.accuracy.samples == 5 for point in found.points)
    reasons = [note for note in found.notes if "no clip" in note]
    assert reasons == [
        "nvm_ideal: no clip: its 'offset' arrays store zero in the middle of their range",
        "xformer_tvlsi_2023: no clip: its attention is not in memristive cells",
        "gtx_1060: no clip: its attention is not in memristive cells",
    ]
    clipped, *others = (point.cost for point in found.points)
    assert clipped.counts == one(hardware={"base": platforms[0]}, mitigation={"clip": clip}).counts
    assert [cost.counts for cost in others] == [one(hardware={"base": name}).counts for name in platforms[1:]]
    few_states = ["hardware.attention.array.cell.g_min='8 uS'"]
    assert any("beta = 0.25 nothing would be left" in note for note in compared(file, platforms[:1], [
        "model.source=shapes:fashion-vit", *few_states]).notes)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [("clip", {"alpha": 2.0, "beta": 0.25}), ("kv", {"mean": True, "basis": "hadamard"})]
)
def test_sram_needs_no_remedy(name: str, value: dict[str, Any]) -> None:
    hardware = {"base": "xformer_tvlsi_2023", **WIDE}
    protected = make_costs({**BASE, "hardware": hardware, "mitigation": {name: value}})
    assert price(protected.points[0].settings) == one(hardware=hardware)
    assert study_costs(protected).notes == (
        f"mitigation.{name} changes nothing where attention is not in memristive cells",
        "cost.timing = 'one_access' of projection arrays: up to 8 times faster than reads and conversions allow",
    )


def test_a_conditioning_is_priced() -> None:
    ours: dict[str, Any] = {"hardware": {"base": "clipformer_tcad_2024_adc8"}}
    kv = {"mean": True, "basis": "hadamard", "scale": "token", "radix": 1, "unbiased": True}
    ours["dataflow"] = {"kind": "layer_serial"}
    free, paid = one(**ours), one(**ours, mitigation={"kv": kv})
    assert paid.counts == free.counts
    assert paid.area_m2 == free.area_m2
    for kind in ("component", "operation"):
        assert 0 < getattr(paid.energy_by, kind)["conditioning"] < paid.energy_J - free.energy_J
    assert paid.latency_s > free.latency_s
    assert paid.critical_path_s["conditioning"] > 0
    assert paid.buffer_B["conditioning"] > 0
    both = one(**ours, mitigation={"kv": kv, "clip": {"alpha": 0.0, "beta": 0.25}})
    assert both.counts["arrays"] < free.counts["arrays"]
    two = one(**ours, mitigation={"kv": {"redundancy": 2}})
    assert two.counts["cell_writes"] == 2 * free.counts["cell_writes"]
    assert two.energy_J > free.energy_J
    with pytest.raises(BadInput, match=r"mitigation.kv.radix = 1: an 'offset' array holds the bits"):
        one(hardware={"base": "nvm_ideal"}, mitigation={"kv": kv})


@pytest.mark.parametrize(
    "arguments",
    [
        ["cost", "bert_base"],
        ["validate", "clipformer_tcad_2024"],
        ["compare", "bert_base", "--platforms", "xformer_tvlsi_2023,gtx_1060"],
        ["run", "bert_base"],
    ],
    ids=" ".join,
)
def test_the_cost_verbs_need_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = "import sys; from ohmformer.cli import main; s = main(); print('torch' in sys.modules, s, file=sys.stderr)"
    command = [sys.executable, "-c", code, *arguments, "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    missed = arguments[0] == "validate" and "hence exit code 1" in " ".join(done.stdout.split())
    assert done.stderr.strip() == f"False {int(missed)}"
    assert json.loads((tmp_path / "out.json").read_text())["schema"] == 1


PLATFORMS = ["xformer_tvlsi_2023", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "clipformer_tcad_2024"]


def test_another_base_is_other_hardware_in_both_halves() -> None:
    """`hardware.base` decides the arrays of accuracy and the prices of cost alike."""
    document = {**catalog.read(locate_study("platforms"))}
    for platform in PLATFORMS:
        variant = put(document, "hardware.base", platform)
        (accuracy,) = make_study(variant).points
        (cost,) = make_costs(variant).points
        assert accuracy.settings.hardware == cost.settings.hardware == load(Accelerator, platform)
        assert accuracy.settings.model.source == cost.settings.model.source


@pytest.mark.slow
def test_every_platform_has_accuracy_and_a_cost_of_its_own(tmp_path: Path) -> None:
    small = ["task.limit=20", "trials.chips=1", "simulation.level=noise"]
    found = compared("platforms", PLATFORMS, small, out=tmp_path, workers=1)
    assert [point.set["hardware.base"] for point in found.points] == PLATFORMS
    for key in ("latency_s", "energy_J", "power_W", "area_m2"):
        assert len({getattr(point.cost, key) for point in found.points}) == len(PLATFORMS)
    accuracy = {point.set["hardware.base"]: point.accuracy for point in found.points}
    assert len({entry.software for entry in accuracy.values()}) == 1
    assert accuracy["gtx_1060"].mean == accuracy["gtx_1060"].software
    assert all(entry.mean > 0.7 for entry in accuracy.values())
    json.loads(to_json(found))


def test_tables_of_dimensions_have_no_accuracy_and_say_so(tmp_path: Path) -> None:
    study = write(tmp_path / "a.toml", task={"source": "bundled:fashion-mnist"})
    found = compared(study, ["nvm_ideal"], [f"hardware.{name}={value}" for name, value in WIDE.items()])
    assert found.notes == (
        "no accuracy: shapes:fashion-vit is a table of dimensions; name a model to measure it",
        "cost.timing = 'one_access' of projection and attention arrays: up to 8 times faster than reads and "
        "conversions allow",
    )
    assert found.points[0].accuracy is None


def test_a_chosen_clip_is_priced(tmp_path: Path) -> None:
    """What calibration chose for the accuracy is what the arrays of the cost half hold."""
    sections = {
        "model": {"source": "python:tests.study.small:model"},
        "task": {"source": "python:tests.study.small:task"},
        "trials": {"chips": 1},
    }
    free = compared(write(tmp_path / "a.toml", **sections), ["clipformer_tcad_2024_adc8"], out=tmp_path / "o")
    strong = {**sections, "mitigation": {"clip": "calibrated"}}
    gamma = "hardware.attention.array.cell.write_noise.gamma=20"
    found = compared(write(tmp_path / "b.toml", **strong), ["clipformer_tcad_2024_adc8"], [gamma], out=tmp_path / "o")
    (point,) = found.points
    clips = json.loads(point.accuracy.chosen.model_dump_json())["clips"]
    assert clips
    rules = {name: {"clip": clip} for name, clip in clips.items()}
    given = write(tmp_path / "c.toml", **sections, rules=rules)
    fixed = compared(given, ["clipformer_tcad_2024_adc8"], [gamma], out=tmp_path / "o")
    assert point.cost == fixed.points[0].cost
    assert point.cost.counts["arrays"] <= free.points[0].cost.counts["arrays"]


@pytest.mark.parametrize("mitigation", [{"clip": "calibrated"}, {"kv": "auto"}])
def test_what_is_not_chosen_yet_is_said_to_be_missing(mitigation: dict[str, str]) -> None:
    calibrated = {**BASE, "hardware": {"base": "clipformer_tcad_2024_adc8", **WIDE}, "mitigation": mitigation}
    note, cores = study_costs(make_costs(calibrated)).notes
    assert cores.startswith("power and area of cores and tiles (without their arrays)")
    ((name, value),) = mitigation.items()
    assert note.startswith(f"mitigation.{name} = '{value}' is chosen where accuracy is measured: priced without it")
    unlimited = {**BASE, "hardware": {"base": "xformer_tvlsi_2023", **WIDE}}
    assert not any(each.startswith("mitigation") for each in study_costs(make_costs(unlimited)).notes)


def test_what_auto_chooses_for_each_operand_is_priced(tmp_path: Path) -> None:
    sections = {
        "model": {"source": "python:tests.study.small:model"},
        "task": {"source": "python:tests.study.small:task"},
        "trials": {"chips": 1},
        "hardware": {"base": "clipformer_tcad_2024_adc8", "attention.array.cell.write_noise.gamma": 7},
    }
    study = write(tmp_path / "a.toml", **sections, mitigation={"kv": "auto"})
    (point,) = compared(study, ["clipformer_tcad_2024_adc8"], out=tmp_path / "o", workers=1).points
    chosen = point.accuracy.chosen
    assert chosen.recipe in ("hadamard", "balanced")
    (settings,) = (each.settings for each in make_costs({**BASE, **sections}).points)
    kv = dict(chosen.kv)
    assert point.cost == price(settings, chosen)
    fixed = settings.mitigation.model_copy(update={"kv": next(iter(kv.values()))})
    for_all = price(settings.model_copy(update={"mitigation": fixed}))
    assert point.cost == for_all, "range and slices alone differ from operand to operand, which costs nothing"
    some = chosen.model_copy(update={"kv": dict(list(kv.items())[1:])})
    parts = [price(settings, each).energy_by.component["conditioning"] for each in (chosen, some)]
    assert parts[0] > parts[1] > 0


def test_the_platform_that_cannot_be_priced_is_named(tmp_path: Path) -> None:
    study = write(tmp_path / "a.toml")
    with pytest.raises(BadInput, match=r"hardware.chip: is missing .* \(at hardware.base = 'generic_amplitude'\)$"):
        compared(study, ["clipformer_tcad_2024_adc8", "generic_amplitude"])


def test_measures_that_are_no_shares_are_shown_as_what_they_are() -> None:
    values = {"software": 10.0, "mean": 12.5, "ci95": (11.0, 14.25), "chips": (12.5,), "samples": 3}
    accuracy = Accuracy.model_validate({"metric": "perplexity", "level": "noise", **values})
    found = study_costs(make_costs(BASE))
    point = found.points[0].model_copy(update={"accuracy": accuracy, "set": {"hardware.base": "xformer_tvlsi_2023"}})
    table = compare_table(found.model_copy(update={"points": (point,)}))
    assert next(iter(table.columns[0].cells)) == "perplexity"
    assert next(iter(table.columns[1].cells)) == "12.50 [11.00, 14.25] (1x)"


def test_lifetimes_of_a_comparison_say_whose_they_are(tmp_path: Path) -> None:
    platforms = ["clipformer_tcad_2024", "gtx_1060", "clipformer_tcad_2024_adc8"]
    caption = compare_table(compared(write(tmp_path / "a.toml"), platforms)).caption
    said = "lifetime of clipformer_tcad_2024, clipformer_tcad_2024_adc8: endurance 1e+08 pulses"
    assert str(caption).count("lifetime of") == 1
    assert said in str(caption)
