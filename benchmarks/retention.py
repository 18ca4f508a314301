"""Accuracy of a vision transformer whose attention is in leaking cells, against the time constant of the charge.

Each token of K and V has the age that the timeline of the same accelerator gives it when a query reads it.

    python benchmarks/retention.py [--images 100] [--chips 2]
"""

from __future__ import annotations

import argparse

from ohmformer.study.read_study import make_study
from ohmformer.study.timing.ages import ages_of, evaluate_with_ages

TAUS = ("5 ms", "100 us", "30 us", "10 us", "3 us", "1 us")
PATH = "hardware.attention.array.cell.drift.tau"


def main() -> None:
    """Print accuracy, its interval and the longest age for each time constant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--chips", type=int, default=2)
    options = parser.parse_args()
    document = {
        "name": "retention",
        "model": {"source": "bundled:fashion-vit"},
        "task": {"source": "bundled:fashion-mnist", "limit": options.images},
        "hardware": {"base": "gain_cell_leroux_2025"},
        "simulation": {"level": "noise", "batch": 50, "age": "timeline"},
        "trials": {"chips": options.chips},
        "sweep": {PATH: list(TAUS)},
    }
    print("| tau | longest age | accuracy | 95 % interval | software |")
    print("|---|---|---|---|---|")
    for point in make_study(document).points:
        ages = ages_of(point.settings)
        assert ages is not None
        found = evaluate_with_ages(point.settings).accuracy
        low, high = found.ci95
        age = f"{ages.longest * 1e6:.3g} us"
        print(f"| {point.set[PATH]} | {age} | {found.mean:.3f} | {low:.3f} to {high:.3f} | {found.software:.3f} |")


if __name__ == "__main__":
    main()
