"""Currents by a compiled loop are those of level `cell` by the plain code, from the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ohmformer.array import mvm
from ohmformer.array.crossbar import write
from ohmformer.array.event_counter import counting
from ohmformer.array.kernels import cell_reads
from ohmformer.array.spec import Crossbar
from ohmformer.streams import SampleStreams, Stream
from tests.build import SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
NOISY = cell(read_noise=UNIFORM, write_noise=SQRT_RANGE)
HARDWARE: dict[str, dict[str, Any]] = {
    "bits": {},
    "amplitude": {"inputs": {"kind": "amplitude", "bits": 6}},
    "pulses": {"inputs": {"kind": "integrated", "bits": 4, "weighting": "repetition"}},
    "analog subtraction": {"subtract": "analog"},
    "reference columns": {"encoding": "offset"},
    "five rows": {"rows": 5},
    "many rows": {"rows": 700},
}


def hardware(name: str) -> Crossbar:
    return array(**{"rows": 24, "columns": 16, "bits": 4, "adc": {"bits": 7}, "cell": NOISY, **HARDWARE[name]})


def samples(count: int) -> SampleStreams:
    return SampleStreams(tuple(Stream(3, "sample", n, kernels="compiled") for n in range(count)))


def both_ways(spec: Crossbar, x: Tensor, w: Tensor, stream: Any, patch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """The product by the loop and by the plain code."""
    programmed = write(w, spec, stream=1)
    loop = mvm(x, programmed, level="cell", stream=stream)
    with patch.context() as plain:
        plain.setattr(cell_reads, "fusible", lambda *_: False)
        return loop, mvm(x, programmed, level="cell", stream=stream)


def operands(x: tuple[int, ...], w: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(x, generator=generator), torch.randint(-7, 8, w, generator=generator).float()


@pytest.mark.parametrize("name", HARDWARE)
def test_the_numbers_are_those_of_the_plain_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding may move the code of one conversion in some million: here of none."""
    loop, plain = both_ways(hardware(name), *operands((2, 3, 50), (9, 50)), samples(2), monkeypatch)
    assert plain.abs().max() > 0
    torch.testing.assert_close(loop, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize(
    "shapes", [((2, 1, 3, 30), (7, 30)), ((2, 3, 4, 30), (2, 3, 5, 30)), ((2, 1, 4, 30), (2, 3, 5, 30))]
)
def test_matrices_of_samples_and_heads(shapes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loop, plain = both_ways(hardware("bits"), *operands(*shapes), samples(2), monkeypatch)
    torch.testing.assert_close(loop, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_one_stream_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(3, kernels="compiled")
    loop, plain = both_ways(hardware("bits"), *operands((2, 3, 50), (9, 50)), stream, monkeypatch)
    torch.testing.assert_close(loop, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_a_sample_reads_what_it_reads_alone() -> None:
    """To the bit, and so does a single vector."""
    x, w = operands((3, 4, 50), (9, 50))
    programmed, how = write(w, hardware("amplitude"), stream=1), {"level": "cell", "x_range": 3.0}
    whole = mvm(x, programmed, stream=samples(3), **how)  # type: ignore[arg-type]
    for n in range(3):
        alone = SampleStreams(samples(3).streams[n : n + 1])
        assert torch.equal(mvm(x[n : n + 1], programmed, stream=alone, **how)[0], whole[n])  # type: ignore[arg-type]
        assert torch.equal(mvm(x[n : n + 1, :2], programmed, stream=alone, **how)[0], whole[n, :2])  # type: ignore[arg-type]


def test_reads_are_counted() -> None:
    """One for each vector, cell, input bit, slice and half of a pair."""
    x, w = operands((2, 3, 50), (9, 50))
    programmed = write(w, hardware("bits"), stream=1)
    with counting() as counts:
        mvm(x, programmed, level="cell", stream=samples(2))
    assert counts.cell_reads == 2 * 3 * 9 * 50 * 8 * programmed.slices * 2
