"""Four numbers of the GPU model, fixed by nine published times of the A100, and how well all published times are met.

python benchmarks/gpu_calibration.py > benchmarks/gpu_calibration.md

The times are the claims of `library/papers/gpu_references` with the role `calibration`. Least squares of the logarithms
of modeled / published; the library has the result with two digits.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

from scipy.optimize import least_squares

import ohmformer as of
from ohmformer import units
from ohmformer.study.cost import cost_settings
from ohmformer.study.spec import CostSettings
from ohmformer.validation.claims import Checked, check, papers

NAME = "gpu_references"
FIELDS = ("efficiency", "attention_efficiency", "memory_efficiency", "launch_time")
START = (0.5, 0.3, 0.8, 5e-6)
WIDEST = 1.35
"""Largest factor between a modeled and a published time in the last column."""


def calibration(file: Path) -> list[tuple[CostSettings, float]]:
    """The settings and the published time [s] of the claims that fix the model."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    claims = [claim for claim in content["claim"] if claim["role"] == "calibration"]
    return [(cost_settings(content["runs"][claim["runs"][0]]), units.parse(claim["reported"], "s")) for claim in claims]


def misfits(cases: Sequence[tuple[CostSettings, float]], values: Sequence[float]) -> list[float]:
    """Logarithms of modeled / published times, with the four fields changed to `values`."""
    found = []
    for settings, published in cases:
        hardware, model = settings.hardware, settings.model
        for field, value in zip(FIELDS, values, strict=True):
            hardware = of.replace(hardware, f"engine.{field}", float(value))
        work = of.shapes(
            model.source, tokens=model.seq_len, batch=model.batch, phase=model.phase, context=model.context or 0
        )
        found.append(math.log(of.simulate(work, hardware).latency / published))
    return found


def fitted(file: Path) -> dict[str, float]:
    """The four fields that fit the calibration best."""
    cases = calibration(file)

    def residuals(logs: Sequence[float]) -> list[float]:
        return misfits(cases, [math.exp(each) for each in logs])

    bounds = ([-5.0, -5.0, -5.0, -16.0], [0.0, 0.0, 0.0, -9.0])
    result = least_squares(residuals, [math.log(each) for each in START], bounds=bounds, diff_step=1e-3)
    return dict(zip(FIELDS, map(math.exp, result.x), strict=True))


def main() -> None:
    file = papers()[NAME]
    print("# Calibration of the GPU model\n\n`python benchmarks/gpu_calibration.py > benchmarks/gpu_calibration.md`\n")
    print("| field | fitted | library |\n|---|---|---|")
    engine = of.load("a100_sxm_40gb").projection
    for field, value in fitted(file).items():
        print(f"| `{field}` | {value:.3g} | {getattr(engine, field):g} |")
    print("\n| times | number | geometric mean of modeled / published | smallest | largest | within 1.35 |")
    print("|---|---|---|---|---|---|")
    for role in ("calibration", "validation"):
        found = [_slower(entry) for entry in check(NAME).claims if entry.claim.role == role]
        met = sum(1 / WIDEST <= each <= WIDEST for each in found)
        mean = math.exp(sum(map(math.log, found)) / len(found))
        print(f"| {role} | {len(found)} | {mean:.2f} | {min(found):.2f} | {max(found):.2f} | {met} |")


def _slower(entry: Checked) -> float:
    """Modeled over published time of a claim; its inverse for a rate."""
    assert entry.ratio is not None
    return entry.ratio if entry.unit == "s" else 1 / entry.ratio


if __name__ == "__main__":
    main()
