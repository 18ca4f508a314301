"""From measurements to a cell: make two tables of measured cells, and fit a cell to each.

The tables stand beside this file, in `measured`, and this script made them:

- `phase_change.csv`: 40 cells of phase-change memory, written to 12 conductances and read at five times, in uS and h;
- `resistive.csv`: 16 levels of resistive memory, written 60 times each, as resistances in kohm, with decimal commas and
  some values missing.

`ohmformer device fit examples/measured/phase_change.csv -o cell.toml --figure cell.svg` does the same without Python.
"""

import sys
from pathlib import Path

import numpy as np

import ohmformer as of

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "measured"


def phase_change() -> str:
    """Write noise sigma = 0.3 uS + 0.06 G; conductances drift as t^-nu with nu = 0.05 and a spread of 0.01."""
    rng = np.random.default_rng(1)
    lines = ["cell,target [uS],time [h],measured [uS]"]
    for cell in range(40):
        for target in np.linspace(2, 24, 12):
            written = max(0.1, target + (0.3 + 0.06 * target) * rng.standard_normal())
            nu = 0.05 + 0.01 * rng.standard_normal()
            for hours in (0.01, 0.1, 1, 10, 100):
                read = written * (hours / 0.01) ** -nu * (1 + 0.002 * rng.standard_normal())
                lines.append(f"{cell},{target:g},{hours:g},{read:.4f}")
    return "\n".join(lines) + "\n"


def resistive() -> str:
    """Deviations that rise and fall again, and means up to 8 % above the targets in the middle: no usual law."""
    rng = np.random.default_rng(2)
    lines = ["Target (kohm);Measured (kohm)"]
    for g in np.linspace(5, 100, 16):
        x = (g - 5) / 95
        for _ in range(60):
            held = g * (1 + 0.3 * x * (1 - x)) + (1 + 12 * x * (1 - x) ** 2) * rng.standard_normal()
            measured = f"{1000 / held:.4f}".replace(".", ",") if rng.random() > 0.01 else ""
            lines.append(f"{1000 / g:.4f};{measured}".replace(".", ","))
    return "\n".join(lines) + "\n"


FOLDER.mkdir(exist_ok=True)
for name, table in (("phase_change.csv", phase_change()), ("resistive.csv", resistive())):
    (FOLDER / name).write_text(table, encoding="utf-8")
    fit = of.fit_cell(str(FOLDER / name))
    print(f"{name}: {fit.chosen.label}, p = {fit.chosen.ks:.2f}")
    for other in fit.candidates[:3]:
        print(f"  {other.label}: BIC {other.bic - fit.chosen.bic:+.0f}")
    if fit.drift is not None:
        print(f"  drift: {fit.drift.kind} {fit.drift.values}")
    hardware = of.replace(of.load_crossbar("pcm_joshi_2020"), "cell", fit.cell)
    mean, variance = of.array.held_moments(of.replace(hardware, "age", 0.0))
    print(f"  a pair at full scale holds {float(mean[-1]) / 255:.3f} +- {float(variance[-1]) ** 0.5 / 255:.3f} of it")
