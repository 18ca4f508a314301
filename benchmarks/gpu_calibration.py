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
from ohmformer.validation.claims import papers

NAME = "gpu_references"
FIELDS = ("efficiency", "attention_efficiency", "memory_efficiency", "launch_time")
START = (0.5, 0.3, 0.8, 5e-6)
WIDEST = 1.26
"""Largest factor between a modeled and a published time that counts as met."""


def rows(file: Path, role: str) -> list[tuple[CostSettings, float]]:
    """The settings and the published time [s] of the claims with a role."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    claims = [claim for claim in content["claim"] if claim["role"] == role]
    return [(cost_settings(content["runs"][claim["runs"][0]]), units.parse(claim["reported"], "s")) for claim in claims]


def misfits(cases: Sequence[tuple[CostSettings, float]], values: Sequence[float] | None = None) -> list[float]:
    """Logarithms of modeled / published, with the four fields changed to `values` where they are given."""
    found = []
    for settings, published in cases:
        hardware, model = settings.hardware, settings.model
        for field, value in zip(FIELDS, values or (), strict=False):
            hardware = of.replace(hardware, f"engine.{field}", float(value))
        work = of.shapes(
            model.source, tokens=model.seq_len, batch=model.batch, phase=model.phase, context=model.context or 0
        )
        found.append(math.log(of.simulate(work, hardware).latency / published))
    return found


def fitted(file: Path) -> dict[str, float]:
    """The four fields that fit the calibration best."""
    cases = rows(file, "calibration")

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
    print("\n| times | number | geometric mean of modeled / published | smallest | largest | met |")
    print("|---|---|---|---|---|---|")
    for role in ("calibration", "validation"):
        found = misfits(rows(file, role))
        met = sum(abs(math.exp(each) - 1) <= WIDEST - 1 for each in found)
        middle, low, high = (math.exp(each) for each in (sum(found) / len(found), min(found), max(found)))
        print(f"| {role} | {len(found)} | {middle:.2f} | {low:.2f} | {high:.2f} | {met} |")


if __name__ == "__main__":
    main()
