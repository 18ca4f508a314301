"""A stand-in for torchvision while timm is imported, for where torchvision is missing or does not fit torch.

timm's models need one class of it and timm's data loading names many more; none of the latter is used here. A
torchvision that works is left alone, and no stand-in stays behind: whoever asks for torchvision later gets what is
installed.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization whose statistics and affine parameters are fixed (buffers), as torchvision's."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, fill in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), fill))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W], normalized by channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class InterpolationMode(enum.Enum):
    """How pixels are interpolated."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _StandIn(types.ModuleType):
    """A module with any name asked of it: an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


_NAMES = (
    "", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder", ".utils",
    ".models", ".models.feature_extraction",
)  # fmt: skip


def installed() -> bool:
    """Whether there is a torchvision, of whatever kind."""
    try:
        return importlib.util.find_spec("torchvision") is not None
    except ValueError:  # somebody else's stand-in, which does not say where it comes from
        return True


@cache
def works() -> bool:
    """Whether torchvision can be imported; what a failed import leaves behind is removed."""
    before = _loaded()
    try:
        importlib.import_module("torchvision")
    except Exception:
        # Missing, or built for another torch: "operator torchvision::nms does not exist".
        _restore(before)
        return False
    return True


_ONE_AT_A_TIME = RLock()
"""Modules are those of the whole process: one thread at a time replaces them."""


@contextmanager
def stand_in(*, only_for_broken: bool = False) -> Iterator[None]:
    """Inside, `import torchvision` succeeds: with the real one where that works. Afterwards all is as it was before.

    Args:
        only_for_broken: do nothing where torchvision is not installed at all, for packages that can do without.
    """
    with _ONE_AT_A_TIME:
        if (only_for_broken and not installed()) or works():
            yield
            return
        before = _loaded()
        _restore({})
        try:
            _put()
            yield
        finally:
            _restore(before)


def _put() -> None:
    """Make the stand-in what `import torchvision` finds."""
    for name in _NAMES:
        module = _StandIn(f"torchvision{name}")
        module.__path__ = []
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
        sys.modules[module.__name__] = module
        parent, _, last = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    sys.modules["torchvision.ops.misc"].__dict__["FrozenBatchNorm2d"] = FrozenBatchNorm2d
    for name in ("torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name].__dict__["InterpolationMode"] = InterpolationMode


def _loaded() -> dict[str, types.ModuleType]:
    """The modules of torchvision that are loaded."""
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}


def _restore(modules: dict[str, types.ModuleType]) -> None:
    """Make these the only modules of torchvision that are loaded."""
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(modules)
