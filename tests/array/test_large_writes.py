"""Large matrices are written some outputs at a time: the same bits, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ohmformer.array import folded_writes
from ohmformer.array.folded_writes import write_folded
from ohmformer.hardware.entries import load
from ohmformer.streams import Stream
from tests.build import PROPORTIONAL, array, cell

PER_CELL = load("clipformer_tcad_2024").projection.array


@pytest.mark.parametrize("shape", [(64, 48), (67, 48), (65, 17), (1, 4096)])
@pytest.mark.parametrize("changes", [{}, {"redundancy": 2}])
def test_the_bits_are_those_of_one_piece(
    shape: tuple[int, int], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = PER_CELL.model_copy(update=changes)
    codes = torch.randint(-hardware.max_code, hardware.max_code + 1, shape, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"w_range": 2.5, "stream": Stream(7, "layer"), "read_noise": False}
    whole = write_folded(codes.float(), hardware, **options)
    monkeypatch.setattr(folded_writes, "LARGE", 1)
    monkeypatch.setattr(folded_writes, "PART", 1000)
    called = []
    rows = folded_writes._write_rows
    monkeypatch.setattr(folded_writes, "_write_rows", lambda request: called.append(1) or rows(request))
    parts = write_folded(codes.float(), hardware, **options)
    assert called
    assert torch.equal(parts.values, whole.values)
    assert not torch.equal(parts.values, (codes / hardware.max_code * 2.5).float()), "there is no noise to compare"
    assert (parts.slices, parts.variance) == (whole.slices, None)


def test_matrices_with_read_noise_are_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded_writes, "LARGE", 1)
    hardware = array(cell=cell(read_noise=PROPORTIONAL))
    assert write_folded(torch.ones(16, 16), hardware).variance is not None
