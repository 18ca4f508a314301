"""The studies of this folder, the methods that they compare, and their stored results."""

from __future__ import annotations

from pathlib import Path

from common import curves as common_curves
from common.curves import Curves
from common.small_files import Point

HERE = Path(__file__).parent
RESULTS = HERE / "results"
STUDIES = {
    "vit_s_kv": "ViT-S classifier, K and V noisy",
    "vit_s_all": "ViT-S classifier, all operands noisy",
    "smollm2_news": "SmolLM2 on news, K and V noisy",
    "smollm2_second": "SmolLM2 on editorials, K and V noisy",
    "vit_s_readback": "ViT-S classifier, converters and noise of the read-back",
    "vit_s_cells": "ViT-S classifier, measured cells",
    "vit_s_per_value": "ViT-S classifier, one cell for a whole value of K and V",
    "fashion_vit": "bundled ViT on Fashion-MNIST, K and V noisy",
    "minilm_tweets": "MiniLM on tweets, K and V noisy",
    "minilm_lee50": "MiniLM on pairs of news texts, K and V noisy",
}
"""Studies by the names of their files, and their titles."""

CHANCE = 0.1
"""Accuracy of the ViT-S classifier by guessing: ten classes, equally many photographs of each."""

NOTHING, CLIP, AUTO = "nothing", "clip (2, 0.25)", "auto"
SAME, TWICE = "same cells", "twice the cells"
FIRST = ", 4 first tokens"
TOKENS, SCALING = "4 first tokens alone", "scaling alone"
TITLES = {
    NOTHING: "no mitigation",
    CLIP: "ClipFormer's clip (2, 0.25)",
    TOKENS: "4 first tokens digital, nothing else",
    SCALING: "scaling of weights (NORA), nothing else",
    AUTO: "conditioned, written at once (`auto`)",
    SAME: "read back, same cells",
    SAME + FIRST: "read back, same cells, 4 first tokens digital",
    TWICE: "read back, twice the cells",
    TWICE + FIRST: "read back, twice the cells, 4 first tokens digital",
}
"""Methods by the labels of the sweeps, in the order of tables, and their titles."""


def curves(name: str, folder: Path = RESULTS) -> Curves | None:
    """The methods of a study over the noise; None if nothing is stored."""
    return common_curves.curves(name, STUDIES[name], folder, place, TITLES)


def place(point: Point) -> tuple[str, float] | None:
    """Method and gamma of a point; None for cells whose noise has no gamma."""
    return None if point.gamma is None else (point.label, point.gamma)


def title(method: str) -> str:
    """The title of a method, or its label."""
    return TITLES.get(method, method)
