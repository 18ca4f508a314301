"""What the resistance of wires costs: by size of the arrays, and by solution. Writes a page as Markdown.

The bundled vision transformer on Fashion-MNIST, weights, K and V in pairs of 2-bit cells of 1 to 50 uS (the library's
`generic` cell) without noise, wires of 1 and 3 ohm from cell to cell along rows and columns: all loss is that of wires.

    python benchmarks/ir_drop.py [--images 500] [--write benchmarks/ir_drop.md]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

import ohmformer as of
from ohmformer.array.wires.effective import exact, first_order, sweeps
from ohmformer.array.wires.spec import MAX_LOSS, Wires, largest_loss

SIZES = (32, 64, 128, 256)
OHMS = (1.0, 3.0)
G_MIN, G_MAX = 1e-6, 50e-6
SOLUTIONS = {"exact": exact, "sweeps": sweeps, "first_order": first_order}


def accelerator(size: int, wires: dict[str, object]) -> of.Accelerator:
    """ClipFormer's accelerator with the generic cell, arrays of one size and wires in all of them."""
    hardware = of.load("clipformer_tcad_2024")
    for path, value in {"size": size, "cell.g_min": G_MIN, "cell.g_max": G_MAX, "wires": wires}.items():
        hardware = of.replace(hardware, f"array.{path}", value)
    for role in ("projection", "attention"):
        hardware = of.replace(hardware, f"{role}.array.cell.write_noise", {"kind": "none"})
    return hardware


def error(solve: str, size: int, ohms: float) -> tuple[float, float]:
    """Relative error of random bits times random 2-bit cells against the exact solution, and seconds of an array."""
    wires, generator = Wires(row=ohms, column=ohms), torch.Generator().manual_seed(0)
    digits = torch.randint(0, 4, (1, size, size), generator=generator).double()
    g = G_MIN + digits * (G_MAX - G_MIN) / 3
    bits = torch.randint(0, 2, (100, size), generator=generator).double()
    start = time.process_time()
    found = SOLUTIONS[solve](g, wires)
    seconds = time.process_time() - start
    y = bits @ exact(g, wires)[0].T
    return float((bits @ found[0].T - y).norm() / y.norm()), seconds


def page(images: int) -> str:
    """The page as Markdown."""
    model, task = of.load_model("bundled:fashion-vit"), of.load_task("bundled:fashion-mnist", images)
    lines = ["# What the resistance of wires costs", "", (__doc__ or "").split("\n\n")[1], ""]
    lines += ["| array | " + " | ".join(f"largest loss, {o:g} ohm | accuracy" for o in OHMS) + " |"]
    lines += ["|---|" + "---|---|" * len(OHMS)]
    for size in SIZES:
        row = [f"{size} x {size}"]
        for ohms in OHMS:
            wires = {"row": ohms, "column": ohms, "ir_drop": "sweeps"}
            loss = largest_loss(Wires(row=ohms, column=ohms), size, size, G_MAX)
            if loss > MAX_LOSS["sweeps"]:
                row += [f"{loss:.2f}", "refused"]
                continue
            crossbars = of.convert(model, accelerator(size, wires), sample=task.calibration[:32], level="noise")
            stats = of.monte_carlo(crossbars, lambda chip: of.scores(chip, task), chips=1)
            row += [f"{loss:.2f}", f"{100 * stats.mean:.1f} %"]
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", f"{images} test images; {100 * float(of.scores(model, task).mean()):.1f} % without crossbars.", ""]
    lines += ["Error and CPU time of the solutions, one array, one thread, inputs of random bits:", ""]
    lines += ["| array, 1 ohm | " + " | ".join(SOLUTIONS) + " |", "|---|" + "---|" * len(SOLUTIONS)]
    torch.set_num_threads(1)
    for size in SIZES[:3]:
        found = [error(name, size, 1.0) for name in SOLUTIONS]
        lines.append(
            f"| {size} x {size} | " + " | ".join(f"{100 * e:.3f} %, {1e3 * s:.1f} ms" for e, s in found) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = page(arguments.images)
    print(text, end="")
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
