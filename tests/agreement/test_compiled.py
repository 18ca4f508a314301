"""Compiled kernels at level `array` against level `cell` in PyTorch: results have the same distribution.

Every draw is written and read anew. Seeds are fixed, so these tests always give the same verdict. A single comparison
rejects a true hypothesis with probability 1e-4; there are 180, so other seeds would fail one with a probability of 2 %.
"""

import random
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.array.codes.codec import Codec
from ohmformer.array.converters import adc_range
from ohmformer.array.crossbar import write, write_request
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.kernels import reads
from ohmformer.array.kernels.writes import cell_writes
from ohmformer.array.multiply import needs_cells, product
from ohmformer.array.spec import Crossbar
from ohmformer.streams import SampleStreams, Stream
from ohmformer.streams.backends import Kernels
from tests.agreement.test_distribution import compare
from tests.build import LOGNORMAL, NONE, PROPORTIONAL, SQRT_RANGE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
DRAWS = 2000
OUTPUTS, INPUTS = 5, 22


def hardware(seed: int) -> Crossbar:
    """Random hardware that compiled kernels support."""
    pick = random.Random(seed)
    kind = pick.choice(["bit_serial", "amplitude"])
    noises = {"write_noise": pick.choice([SQRT_RANGE, PROPORTIONAL, UNIFORM])}
    read = pick.choice([NONE, {"kind": "proportional", "sigma": 0.1}, {"kind": "sqrt", "sigma": 0.05}, UNIFORM])
    return array(
        rows=pick.choice([7, 9, 64]),
        bits=pick.choice([4, 6]),
        bits_per_cell=pick.choice([1, 2, 3]),
        redundancy=pick.choice([1, 1, 2]),
        subtract=pick.choice(["digital", "analog"]),
        inputs={"kind": kind, "bits": 4},
        adc={"bits": pick.choice(["ideal", 4, 6]), "range": {"kind": "given", "high": 0.2}},
        cell=cell(read_noise=read, g_ceiling=pick.choice([None, 1.05e-5]), **noises),
    )


def outputs(spec: Crossbar, level: Any, kernels: Kernels) -> np.ndarray:
    """[draws, outputs] of one input vector, on a matrix that each draw writes anew."""
    w = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(3)).expand(DRAWS, OUTPUTS, INPUTS)
    x = torch.linspace(-1, 1, INPUTS).expand(DRAWS, 1, INPUTS)
    streams = SampleStreams(tuple(Stream(8, level, n, kernels=kernels) for n in range(DRAWS)))
    written = write if needs_cells(level, spec) else write_folded
    options: dict[str, Any] = {"codec": Codec(spec), "stream": streams, "w_range": w.abs().amax()}
    cells = written(w.contiguous(), spec, **options)
    span = adc_range(spec, signed=True, calibrated=None)
    how: dict[str, Any] = {"x_range": 1.0, "signed": True, "stream": streams.child("reads"), "adc_range": span}
    return product(x, cells, spec, level=level, kernels=kernels, **how).squeeze(1).double().numpy().round(4)


@pytest.mark.filterwarnings("ignore:ks_2samp")  # of many equal values it computes the p-value in another way
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 12))])
def test_compiled_results_are_distributed_as_those_of_cells(seed: int) -> None:
    spec = hardware(seed)
    request = write_request(torch.ones(2, 3), spec, stream=Stream(1, kernels="compiled"))
    assert cell_writes.fusible(request, read_noise=True)
    if spec.adc.bits != "ideal":
        assert reads.fusible(torch.ones(2), write(torch.ones(2, 3), spec), "compiled")
    compare(outputs(spec, "array", "compiled"), outputs(spec, "cell", "torch"))


@pytest.mark.filterwarnings("ignore:ks_2samp")
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))])
def test_cells_with_compiled_writes_are_distributed_as_those_of_pytorch(seed: int) -> None:
    spec = hardware(seed)
    compare(outputs(spec, "cell", "compiled"), outputs(spec, "cell", "torch"))


def test_without_noise_compiled_results_are_those_of_pytorch() -> None:
    for seed in range(4):
        spec = hardware(seed)
        spec = spec.model_copy(update={"cell": cell()})
        exact, compiled = (outputs(spec, "array", kernels)[:3] for kernels in ("torch", "compiled"))
        # Sums over blocks are rounded in another way; results are rounded to four digits.
        np.testing.assert_allclose(compiled, exact, rtol=1e-5, atol=1.01e-4)


def test_writes_that_are_not_gaussian_keep_their_distribution() -> None:
    """Their numbers are drawn by compiled loops, and the rest is PyTorch."""
    spec = array(bits=4, inputs={"bits": 4}, cell=cell(write_noise=LOGNORMAL, read_noise=PROPORTIONAL))
    compare(outputs(spec, "array", "compiled"), outputs(spec, "cell", "torch"))
