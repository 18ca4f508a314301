"""The studies of this folder, the methods that they compare, and their stored results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import curves as common_curves
from common.curves import Curves
from common.small_files import Point

HERE = Path(__file__).parent
RESULTS = HERE / "results"
STUDIES = {
    "vit_s": "ViT-S on photographs, noise per cell",
    "vit_s_vat": "ViT-S trained under noise, noise per cell",
    "vit_s_vat_clip": "ViT-S trained under noise with the clip, noise per cell",
    "vit_s_vat_kv": "ViT-S trained under noise with ours, noise per cell",
    "vit_s_per_value": "ViT-S, noise per whole value",
    "fashion_vit": "bundled ViT, Fashion-MNIST",
    "fashion_vit_vat": "bundled ViT trained under noise, Fashion-MNIST",
    "fashion_vit_vat_kv": "bundled ViT trained under noise with ours, Fashion-MNIST",
    "minilm_tweets": "MiniLM, tweets",
    "minilm_tweets_vat": "MiniLM trained under noise, tweets",
    "minilm_tweets_vat_kv": "MiniLM trained under noise with ours, tweets",
    "minilm_lee50": "MiniLM, pairs of news texts",
    "smollm2_news": "SmolLM2, news through a KV cache",
    "smollm2_news_vat": "SmolLM2 trained under noise, news through a KV cache",
    "smollm2_news_vat_kv": "SmolLM2 trained under noise with ours, news through a KV cache",
    "deit_s_imagenet": "DeiT-S on ImageNet",
}
"""Studies over the noise, by the names of their files, and what they are called."""

ABLATION = "ablation"
CHANCE = 0.1
"""Accuracy of the ViT-S studies by guessing: ten classes, equally many photographs of each."""

GAMMAS = (3, 4, 5)
"""Noise levels of the paper."""

CLIP, KV = "mitigation.clip", "mitigation.kv"
GAMMA = "hardware.attention.array.cell.write_noise.gamma"
METHODS = {
    "none": "no mitigation",
    "clip": "ClipFormer (2, 0.25)",
    "calibrated": "ClipFormer, calibrated",
    "auto": "ours",
}
"""What is compared, in the order of the tables."""

TRAINED = {
    "_vat": ("none", "VAT"),
    "_vat_clip": ("clip", "VAT + ClipFormer"),
    "_vat_kv": ("auto", "VAT + ours"),
}
"""What the name of a study adds to that of its parent, where the model was trained under noise: the method whose points
stand beside those of the parent, and what they are called there."""

COMPARED = (("none", "clip"), ("clip", "auto"), ("none", "auto"))
"""Reference and method of the gains that are told."""


def method_of(settings: Mapping[str, Any], label: str) -> str | None:
    """Which of the methods a point is; None for others, such as those with a label."""
    if label or set(settings) - {GAMMA, CLIP, KV}:
        return None
    clip, kv = settings.get(CLIP, "none"), settings.get(KV, "none")
    match clip, kv:
        case "none" | "calibrated", "none":
            return str(clip)
        case {"alpha": 2.0, "beta": 0.25}, "none":
            return "clip"
        case "none", "auto":
            return "auto"
    return None


def curves(name: str, folder: Path = RESULTS) -> Curves | None:
    """The methods of a study over the noise; None if nothing is stored."""

    def place(point: Point) -> tuple[str, float] | None:
        method = method_of(point.set, point.label)
        return None if method is None else (method, float(point.set[GAMMA]))

    return common_curves.curves(name, STUDIES.get(name, name), folder, place, METHODS)
