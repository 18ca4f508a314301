"""Model libraries for tests that need them: skipped where they are missing."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from ohmformer.models.torchvision_stub import stand_in

_OPERATORS: list[Any] = []


def library(name: str) -> Any:
    """A library of models, or a skipped test; torchvision may be missing, or not fit torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if find_spec("torchvision"):
            try:
                import torchvision  # noqa: F401
            except RuntimeError:
                _OPERATORS.append(torch.library.Library("torchvision", "DEF"))
                for operator in ("nms", "qnms"):
                    _OPERATORS[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        with stand_in(only_for_broken=name != "timm"):
            return pytest.importorskip(name)


def on_meta(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A model without weights."""
    with torch.device("meta"):
        return cls(*args, **kwargs)
