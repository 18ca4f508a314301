"""The tensors in the output of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.torch_private import tree_leaves


def float_tensors(output: Any) -> list[Tensor]:
    """Return all floating-point tensors of a nested output, and complex ones as pairs of real numbers."""
    tensors: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            tensors += [torch.view_as_real(leaf)] if leaf.is_complex() else [leaf] if leaf.is_floating_point() else []
        elif isinstance(leaf, Mapping):
            tensors += float_tensors(list(leaf.values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            tensors += float_tensors([getattr(leaf, each.name) for each in fields(leaf)])
    return tensors
