"""What is written for K and V, and what comes back: conductances and signal-to-noise ratio, with each method.

python histograms.py NAME [...] measures models on a few calibration inputs and puts the numbers into
results/conductances.json, from which rescue.py draws. What is stored of another number of images stays, unless
--replace says otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from stored import HERE, RESULTS
from torch import Tensor, nn

from ohmformer.capture.inputs import call, size, take
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.calibration import recipes
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.convert import StaysDigital, convert
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.stats.intervals import value_interval
from ohmformer.streams import samples
from ohmformer.study.evaluate_point import loaded, one_thread
from ohmformer.study.read_study import read_study
from ohmformer.study.spec import Settings

FILE = RESULTS / "conductances.json"
BINS = 64
MODELS = {"vit_s": "ViT-S on photographs", "fashion_vit": "bundled ViT, Fashion-MNIST"}
"""Models that are measured, by the names of their studies."""

METHODS = ("none", "clip", "auto")
"""`auto` is the recipe `balanced` here, which `auto` chooses wherever noise matters."""

GAMMAS = (3, 5)
SHARES = (0.5, 0.9, 0.99, 1.0)
"""Of the values, ordered by magnitude."""

Table = dict[str, Any]


def measured(settings: Settings, images: int) -> Table:
    """Histograms and signal-to-noise ratio by layer, of one model under one noise.

    Raises:
        BadInput: an attention is no softmax of scaled scores.
    """
    model, task = loaded(settings.model, settings.task)
    sample = take(task.calibration, slice(0, images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaysDigital)
        converted = convert(model, settings.hardware, sample=sample, level="noise", seed=settings.seed)
    found = crossbars(converted)
    sites = attention_sites(converted)
    found.state.mode = "observe tokens"
    with torch.no_grad(), named_rows(sample, found.axis):
        call(converted, sample)
    found.state.mode = "run"
    result: Table = {"histograms": {}, "quantiles": {}, "snr": {}}
    for method in METHODS:
        for pair in sites:
            for operand in pair:
                put(method, operand)
        calibrate_ranges(converted)
        written = {axis: magnitudes([pair[place] for pair in sites]) for place, axis in enumerate("KV")}
        result["histograms"][method] = {axis: histogram(values) for axis, values in written.items()}
        result["quantiles"][method] = {axis: quantiles(values) for axis, values in written.items()}
        with torch.no_grad(), samples(f"calibration {place}" for place in range(size(sample))):
            result["snr"][method] = [decibels(key, value) for key, value in sites]
    return result


def attention_sites(converted: nn.Module) -> list[tuple[KVOperand, KVOperand]]:
    """K and V of every attention, in the order of the model."""
    dynamic = {one.name: one for one in crossbars(converted).operands if isinstance(one, KVOperand)}
    return [(one, dynamic[f"{name[:-1]}V"]) for name, one in dynamic.items() if one.axis == "K"]


def put(method: str, operand: KVOperand) -> None:
    """Set an operand to a method."""
    recipes.apply("balanced" if method == "auto" else "none", operand)
    if method == "clip":
        operand.clip = KVClip(alpha=2.0, beta=0.25)


def magnitudes(operands: list[KVOperand]) -> Tensor:
    """(G - G_min) / (G_max - G_min) of the conductance that each whole value would have, of all that was watched."""
    parts = []
    for operand in operands:
        for seen in operand.watched:
            values = seen.tokens
            if operand.conditioner is not None:
                values, _ = operand.conditioner.to(values).values(values, seen.unpadding)
            codes = operand.codec.codes(values, operand.range(values, seen.unpadding))
            parts.append((codes.abs() / operand.array.max_code).flatten())
    return torch.cat(parts)


def histogram(values: Tensor) -> list[float]:
    """Share of values in each of `BINS` equal bins of [0, 1]."""
    counts = torch.histc(values, bins=BINS, min=0.0, max=1.0)
    return [round(share, 6) for share in (counts / counts.sum()).tolist()]


def quantiles(values: Tensor) -> list[float]:
    """The magnitudes below which `SHARES` of the values lie."""
    ordered = values.sort().values
    places = [min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1)) for share in SHARES]
    return [round(float(ordered[place]), 4) for place in places]


def decibels(key: KVOperand, value: KVOperand) -> list[float]:
    """Signal over noise of softmax(Q K^T) V in dB: the mean over inputs, and the bounds of its 95 % interval.

    Q, K and V are those of the exact model, so it is the noise of this layer alone.
    """
    found: list[float] = []
    for one, two in zip(key.watched, value.watched, strict=True):
        scale = scale_of(one.x, one.tokens, two.x, key.name)
        exact = two.x @ two.tokens
        scores = key.product(one.x, one.tokens) * scale
        got = value.product(scores.softmax(dim=-1), two.tokens)
        signal, noise = (t.square().sum(dim=(1, 2, 3)) for t in (exact, got - exact))
        found += (10 * (signal / noise).log10()).tolist()
    return [round(number, 3) for number in (sum(found) / len(found), *value_interval(np.array(found)))]


def scale_of(q: Tensor, k: Tensor, p: Tensor, name: str) -> float:
    """What the model multiplies the scores with before softmax, told from what it makes of them.

    Raises:
        BadInput: the attention is no softmax of scaled scores.
    """
    scores = q @ k.transpose(-2, -1)
    for scale in (1.0, q.shape[-1] ** -0.5):
        if torch.allclose((scores * scale).softmax(dim=-1), p, atol=1e-4):
            return scale
    raise BadInput(f"{name}: is no softmax of scaled scores; signal and noise are computed for plain attention only")


def main() -> None:
    """Measure the models that are named, and keep what is stored of others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--gamma", type=float, nargs="+", default=GAMMAS, help="noise levels; default: 3 and 5")
    parser.add_argument("--replace", action="store_true", help="replace what is stored of another number of images")
    options = parser.parse_args()
    if not options.replace:
        for name in options.name:
            check_kept(name, options.images)
    for name in options.name:
        for gamma in options.gamma:
            sets = [f"hardware.attention.array.cell.write_noise.gamma={gamma:g}"]
            settings = read_study(str(HERE / "studies" / f"{name}.toml"), sets).points[0].settings
            with one_thread():
                keep(name, f"{gamma:g}", options.images, measured(settings, options.images))


def stored() -> Table:
    """The file of results; without models if there is none."""
    content: Table = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"bins": BINS, "models": {}}
    return content


def check_kept(name: str, images: int) -> None:
    """Refuse to replace what is stored of a model by a measurement on another number of images.

    Raises:
        BadInput: it would be replaced.
    """
    known = stored()["models"].get(name, {}).get("images", images)
    if known != images:
        raise BadInput(
            f"{FILE.name}: holds {name} measured on {known} images, which --images {images} would replace; give "
            f"--images {known}, or --replace"
        )


def keep(name: str, gamma: str, images: int, found: Table) -> None:
    """Put what was measured into the file, beside what is there; what was measured on other inputs goes."""
    content = stored()
    entry = content["models"].get(name, {})
    before = entry.get("noise", {})
    known = before if entry.get("images") == images else {}
    replaced = [level for level in before if level not in known or (level == gamma and before[level] != found)]
    if replaced:
        print(f"{FILE.name}: replaced what was stored of {name} at gamma {', '.join(replaced)}")
    noise = dict(sorted({**known, gamma: found}.items()))
    content["models"] = dict(sorted({**content["models"], name: {"images": images, "noise": noise}}.items()))
    text = json.dumps(content).replace('{"', '\n{"').replace('"auto"', '\n"auto"')  # short lines, small differences
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text.lstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        raise SystemExit(str(error)) from None
