"""Takes the results of a study from its store into a small file, also those of a study that has not ended."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.small_files import Document, Row, load, packed, repacked, to_text
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import Conditioning, WeightMitigation
from ohmformer.study.cost import price, wear_result
from ohmformer.study.join_cost import without_choice
from ohmformer.study.loaded import loaded, one_thread
from ohmformer.study.noise_labels import filled
from ohmformer.study.read_study import cost_half, read_both, read_study
from ohmformer.study.results.costs import Wear
from ohmformer.study.results.document import study_results
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.key import code_digest
from ohmformer.study.results.spec import Chosen
from ohmformer.study.run import study_keys
from ohmformer.study.serving import served_of
from ohmformer.study.spec import CostSettings, Settings
from ohmformer.study.store.store import Store
from ohmformer.tasks.scoring import scores

USUAL = {"kv": Conditioning().model_dump(by_alias=True), "weights": WeightMitigation().model_dump(by_alias=True)}
"""Kind of a mitigation -> the values of its fields that a small file leaves out."""


def add_collect(parser: ArgumentParser) -> None:
    """Add the command `collect` with its options to the command line of a page."""
    taking = parser.add_subparsers(dest="command").add_parser("collect", help="take what a study has stored")
    taking.add_argument("study", type=Path)
    taking.add_argument("--runs", type=Path, help="folder with results.sqlite; default: ohmformer-runs/ and the name")
    taking.add_argument("--fewer", action="store_true", help="replace results that have more points")
    taking.add_argument("--add", action="store_true", help="keep points that are not stored for this code")
    taking.add_argument("--set", action="append", default=[], dest="sets", metavar="PATH=VALUE")


def collect_as_asked(options: Namespace, results: Path) -> None:
    """Collect with the options of the command line."""
    collect(options.study, options.runs, results, options.sets, fewer=options.fewer, add=options.add)


def collect(
    study: Path, runs: Path | None, results: Path, sets: list[str], *, fewer: bool = False, add: bool = False
) -> None:
    """Take the stored results of a study into a folder of small files.

    Args:
        study: the study file.
        runs: folder with results.sqlite; None for the default one of the study.
        results: folder of the small files.
        sets: changes 'PATH=VALUE' of the study.
        fewer: True to replace a small file that has more points.
        add: True to keep the points of the small file that are not stored for this code.

    Raises:
        BadInput: nothing is stored for this code, model and data, or fewer points than the small file has.
    """
    folder = runs or default_folder(read_study(str(study)).name)
    if not (folder / "results.sqlite").exists():
        raise BadInput(f"{folder}: holds no results.sqlite; say with --runs where the study was run")
    content = collected(study, folder, sets)
    if not content["points"]:
        raise BadInput(f"{folder}: nothing is stored of {study} for this code, model and data; run the study first")
    results.mkdir(exist_ok=True)
    target, known = results / f"{study.stem}.json", load(study.stem, results)
    if add and known:
        content = added(study, content, repacked(known), sets)
    if known and len(known["points"]) > len(content["points"]) and not fewer:
        counts = f"{len(content['points'])} points are stored for this code, but {target} has {len(known['points'])}"
        remedy = "collect with the code that computed them, keep all with --add, or drop some with --fewer"
        raise BadInput(f"{folder}: {counts}; {remedy}")
    target.write_text(to_text(content), encoding="utf-8")
    print(f"{len(content['points'])} of {content['asked']} points of {study.name} are in {target}")


def collected(study_file: Path, runs: Path, sets: Iterable[str] = ()) -> Document:
    """The small file of what a store holds of a study.

    Raises:
        BadInput: the study cannot be read, or model and data are missing.
    """
    study, whole = read_both(str(study_file), list(sets))
    keys, costs = study_keys(study), cost_half(whole).points
    with Store(runs / "results.sqlite") as store:
        known = store.get(dict.fromkeys(keys))
    there = [number for number, key in enumerate(keys) if key in known]
    part = replace(study, points=tuple(study.points[number] for number in there))
    results = study_results(part, [keys[number] for number in there], [known[keys[number]] for number in there])
    found = results.model_dump(by_alias=True)
    points = []
    for number, point in zip(there, found["points"], strict=True):
        cost = _cost(costs[number].settings, known[keys[number]].accuracy.chosen)
        points.append({**_small(point), **cost, "code": code_digest()[:12]})
    software = _software(study.points[0].settings) if points else {}
    return {**found, "asked": len(keys), **software, "points": points}


def added(study_file: Path, new: Document, old: Document, sets: Iterable[str] = ()) -> Document:
    """The points of both, in the order of the study; the new one if both have a point."""
    both = {_name(point.get("label", ""), point["set"]): point for point in (*old["points"], *new["points"])}
    study = read_study(str(study_file), list(sets))
    asked = [_name(filled(point.label, point.settings.hardware), point.set) for point in study.points]
    return {**new, "points": [both[name] for name in dict.fromkeys(asked) if name in both]}


def _name(label: str, values: Row) -> str:
    return json.dumps([label, values], sort_keys=True)


def _software(settings: Settings) -> Row:
    """What paired differences need of the model without crossbars: its scores, or its value without each part of the
    samples, for metrics that only all samples together have."""
    with one_thread(), torch.inference_mode():
        model, task = loaded(settings.model, settings.task)
        found = scores(model, task, settings.simulation.batch)
    if task.metric_kind.counts == "whole":
        return {"software_left_out": list(task.summarize(np.array([found])).jackknife_means)}
    return {"software_hits": packed([int(hit) if hit in (0, 1) else float(hit) for hit in found.tolist()])}


def _cost(settings: CostSettings, chosen: Chosen | None) -> Row:
    """The cost of a pass, or of the requests of a point; where there is no price, the reason."""
    settings = without_choice(settings, chosen)
    try:
        if settings.model.generate is None:
            cost = price(settings, chosen)
            values = cost.latency_s, cost.energy_J, cost.area_m2, cost.counts["arrays"], _wear(cost.lifetime)
        else:
            served, options = served_of(settings, chosen), settings.cost
            worn = served.first_worn(options.rate, leveling=options.leveling, spare=options.spare)
            arrays = sum(served.machine.arrays.values())
            values = served.latency, served.energy, served.area, arrays, _wear(wear_result(worn))
    except BadInput as error:
        return {"no_cost": str(error)}
    return {"cost": dict(zip(("latency_s", "energy_J", "area_m2", "arrays", "wear"), values, strict=True))}


def _wear(wear: Wear | None) -> float | None:
    """Pulses that the most worn cell takes in a pass."""
    return None if wear is None else wear.writes_per_cell_s * wear.pulses_per_write / wear.rate_per_s


def _small(point: Row) -> Row:
    accuracy = {name: value for name, value in point["accuracy"].items() if name != "chosen"}
    if chosen := point["accuracy"].get("chosen"):
        accuracy["chosen"] = _small_choice(chosen)
    if "hits" in accuracy:
        accuracy["hits"] = packed(accuracy["hits"])
    kept = {name: value for name, value in point.items() if name in ("set", "label", "write_noise", "notes")}
    return {**kept, "accuracy": accuracy}


def _small_choice(chosen: Row) -> Row:
    """A choice without fields that have their usual values."""
    kept = {name: chosen[name] for name in ("recipe", "losses", "comparison") if chosen.get(name)}
    if any(clip != "none" for clip in chosen["clips"].values()):
        kept["clips"] = chosen["clips"]
    if chosen["kv"]:
        kept["kv"] = _unusual("kv", chosen["kv"])
    if weights := chosen.get("weights"):
        kept["weights"] = {**weights, "weights": _unusual("weights", weights["weights"])}
    return kept


def _unusual(kind: str, specs: dict[str, Row]) -> dict[str, dict[str, Any]]:
    usual = USUAL[kind]
    return {
        operand: {name: value for name, value in spec.items() if name not in usual or usual[name] != value}
        for operand, spec in specs.items()
    }
