"""One product on the array `aihwkit_standard_preset`, against aihwkit itself and against its published formula.

The cells are exact and the wires ideal, since only drivers, converters and the noise of reads are compared: 254 steps
of inputs from -1 to 1, output noise 0.04, 254 steps of results from -10 to 10, and (in the formula alone, since
aihwkit's tile in PyTorch does not have it) w_noise 0.0175 of type PCM_READ. aihwkit is used if it can be imported; the
package never needs it. Prints a markdown table of one output: mean, standard deviation, and the probability p that two
samples of one distribution differ as much (Kolmogorov and Smirnov). `--write` also keeps it.

    python benchmarks/aihwkit_product.py [--draws 20000] [--write benchmarks/aihwkit_product.md]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor

import ohmformer as of
from ohmformer.array import mvm, program

INPUTS, STEPS, BOUND, OUT_NOISE, W_NOISE = 300, 254, 10.0, 0.04, 0.0175


def ours(w: Tensor, x: Tensor, draws: int, *, w_noise: bool) -> np.ndarray:
    """Results of the package."""
    array = of.replace(of.load_crossbar("aihwkit_standard_preset"), "wires", None)
    array = of.replace(array, "cell.write_noise", {"kind": "none"})
    if not w_noise:
        array = of.replace(array, "cell.read_noise", {"kind": "none"})
    programmed = program(w, array, w_range=1.0)
    return mvm(x.expand(draws, -1), programmed, x_range=1.0, stream=1)[:, 0].numpy()


def formula(w: Tensor, x: Tensor, draws: int, *, w_noise: bool) -> np.ndarray:
    """y = clip(round(w x + 0.0175 sqrt(|w| x^2) eps + 0.04 eps)), as in Rasch et al. (2023)."""
    rng, step = np.random.default_rng(2), 2 / STEPS
    sent, row = np.round(x.numpy() / step) * step, w.numpy()[0]
    std = W_NOISE * np.sqrt(np.abs(row) @ sent**2) if w_noise else 0.0
    y = row @ sent + std * rng.standard_normal(draws) + OUT_NOISE * rng.standard_normal(draws)
    return np.clip(np.round(y / (step * BOUND)) * step * BOUND, -BOUND, BOUND)


def aihwkit(w: Tensor, x: Tensor, draws: int) -> np.ndarray | None:
    """Results of aihwkit; None if it is not installed."""
    try:
        from aihwkit.simulator.parameters import IOParameters
        from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType
        from aihwkit.simulator.tiles.analog_mvm import AnalogMVM
    except ImportError:
        return None
    settings = IOParameters(
        inp_res=STEPS,
        out_res=STEPS,
        out_bound=BOUND,
        out_noise=OUT_NOISE,
        bound_management=BoundManagementType.NONE,
        noise_management=NoiseManagementType.CONSTANT,
        nm_thres=1.0,
    )
    return np.asarray(AnalogMVM.matmul(w, x.expand(draws, -1), settings, False, True)[:, 0])


def lines(draws: int) -> Iterator[str]:
    """The table."""
    torch.manual_seed(0)
    yield "| w_noise | input | source | mean | standard deviation | p |"
    yield "|---|---|---|--:|--:|--:|"
    w = torch.rand(1, INPUTS) * 2 - 1
    at_bound = w[0].sign() * 10 / 127 * (w[0].abs().cumsum(0) <= BOUND * 12.7)
    for title, x in (("random", torch.rand(INPUTS) * 0.4 - 0.2), ("at the bound", at_bound)):
        for w_noise in (False, True):
            found = ours(w, x, draws, w_noise=w_noise)
            others = {"formula": formula(w, x, draws, w_noise=w_noise)}
            if not w_noise and (theirs := aihwkit(w, x, draws)) is not None:
                others["aihwkit"] = theirs
            start = f"| {W_NOISE if w_noise else 0} | {title}"
            yield f"{start} | ohmformer | {found.mean():.4f} | {found.std():.4f} | |"
            for name, other in others.items():
                steps = STEPS / (2 * BOUND)  # numbers of steps, since the results differ by rounding errors
                p = ks_2samp((found * steps).round(), (other * steps).round()).pvalue
                yield f"{start} | {name} | {other.mean():.4f} | {other.std():.4f} | {p:.2f} |"


def main() -> None:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = "\n".join(["# One product with the settings of aihwkit", "", *lines(arguments.draws)])
    print(text)
    if arguments.write:
        arguments.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
