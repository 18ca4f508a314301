"""Cells are split into numbers in bfloat16 without a loss."""

from __future__ import annotations

import numpy as np
import torch

from tests.gpu.kernels import needs_amx


@needs_amx
def test_three_parts_of_a_cell_are_the_cell() -> None:
    """Also cells below zero, of which a column and a row block are cut short."""
    from ohmformer.array.kernels.amx import bit_serial_amx as loops

    digits = torch.randn(20, 50, generator=torch.Generator().manual_seed(1)).numpy()
    cells, pair = np.zeros((2, 3, 2, 16, 16), np.uint32), np.zeros((2, 16), np.uint32)
    assert loops.split(cells, digits, 0, 3, 45, pair) == 3
    parts = np.stack([cells << 16, cells & 0xFFFF0000], axis=-1).astype(np.uint32).view(np.float32)
    found = parts.astype(np.float64).sum(1).transpose(0, 2, 4, 1, 3).reshape(64, 32)
    assert np.array_equal(found[:42, :20], digits[:, 3:45].T.astype(np.float64))
    assert not found[42:].any()
    assert not found[:, 20:].any()
    assert loops.split(cells, np.round(digits * 50), 0, 3, 45, pair) == 1
