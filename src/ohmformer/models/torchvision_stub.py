"""A stub for torchvision while timm is imported, for machines where torchvision is missing or does not fit torch.

timm's models need one class of torchvision. timm's data loading imports many more, none of which is used here. A
torchvision that works is used unchanged. The stub is in `sys.modules` only during the import, under a lock; afterward
the modules of torchvision are the ones that were there before.
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
    """Batch normalization with fixed statistics and affine parameters (buffers), as in torchvision."""

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
        """Normalize x [B, C, H, W] by channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class InterpolationMode(enum.Enum):
    """Interpolation filters, as in torchvision."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Stub(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


_NAMES = (
    "", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".datasets.folder", ".utils",
    ".models", ".models.feature_extraction",
)  # fmt: skip


def installed() -> bool:
    """True if torchvision is installed, working or not."""
    try:
        return importlib.util.find_spec("torchvision") is not None
    except ValueError:  # another package's stub, without a module specification
        return True


@cache
def works() -> bool:
    """True if torchvision can be imported. Cached for the process; modules of a failed import are removed."""
    before = _loaded()
    try:
        importlib.import_module("torchvision")
    except Exception:
        # It is missing, or built for another torch: "operator torchvision::nms does not exist".
        _restore(before)
        return False
    return True


_MODULES_LOCK = RLock()
"""`sys.modules` is global to the process, so one thread at a time replaces modules of torchvision."""


@contextmanager
def stand_in(*, only_for_broken: bool = False) -> Iterator[None]:
    """Make `import torchvision` succeed inside the context: the installed one if it works, else the stub.

    Args:
        only_for_broken: do nothing if torchvision is not installed, for packages that do not need it.
    """
    with _MODULES_LOCK:
        if (only_for_broken and not installed()) or works():
            yield
            return
        before = _loaded()
        _restore({})
        try:
            _install_stub()
            yield
        finally:
            _restore(before)


def _install_stub() -> None:
    """Put the stub into `sys.modules`."""
    for name in _NAMES:
        module = _Stub(f"torchvision{name}")
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
    """Return the loaded modules of torchvision."""
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}


def _restore(modules: dict[str, types.ModuleType]) -> None:
    """Replace the loaded modules of torchvision by these."""
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(modules)
