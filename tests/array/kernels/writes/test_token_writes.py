"""A loop that writes all tokens in one call leaves in the cells what other code leaves there, to the bit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ohmformer.array import event_counter
from ohmformer.array.codes.codec import Codec
from ohmformer.array.crossbar import write
from ohmformer.array.encoding import magnitude_range
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.kernels.writes.token_writes import TokenWrites
from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream, TokenStreams
from tests.array.kernels.writes.test_cell_writes import HARDWARE, READS, hardware
from tests.build import FLICKER, PCM_DRIFT, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

pytestmark = needs_numba
SHAPES = [(3, 2, 5, 4), (3, 1, 1, 7), (3, 3, 67, 33)]
SAMPLES = tuple(Stream(3, name, kernels="compiled") for name in "abc")


def tokens_of(shape: tuple[int, ...], layout: str = "of heads") -> Tensor:
    """Tokens [B, R, N, d], as a layer for all heads leaves them, or with gaps between features."""
    B, R, N, d = shape
    drawn = torch.randn(B, N, 2, R, 2 * d, generator=torch.Generator().manual_seed(4)).permute(2, 0, 3, 1, 4)[1]
    return drawn[..., ::2] if layout == "gaps" else drawn[..., :d]


def streams_of(kind: str, N: int) -> SampleStreams:
    """One stream of each sample, or one of each token; the first place of the last sample holds none."""
    if kind == "samples":
        return SampleStreams(SAMPLES)
    numbers = [tuple(range(3 * b, 3 * b + N)) for b in range(3)]
    return TokenStreams(SAMPLES, numbers=(*numbers[:2], (-1, *numbers[2][1:])))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["samples", "tokens"])
@pytest.mark.parametrize("axis", ["K", "V"])
@pytest.mark.parametrize("name", [name for name in HARDWARE if name != "uneven levels"])
def test_cells_hold_the_same(name: str, axis: str, kind: str, shape: tuple[int, ...]) -> None:
    for read_noise, reads in ((False, None), *((True, reads) for reads in READS)):
        spec = hardware(name)
        if reads is not None:
            spec = spec.model_copy(
                update={"cell": spec.cell.model_validate({**spec.cell.canonical(), "read_noise": reads})}
            )
        writes = TokenWrites.of(spec, read_noise=read_noise)
        assert writes is not None
        for by_head in (True, False):
            t, streams = tokens_of(shape, "gaps" if by_head else "of heads"), streams_of(kind, shape[2])
            span = magnitude_range(t, (-2, -1) if by_head else (-3, -2, -1), 100)
            expected = write_folded(
                t if axis == "K" else t.mT, spec, read_noise=read_noise, codec=Codec(spec), code_range=span,
                w_range=span, stream=streams, fault_stream=Stream(0), major="outputs" if axis == "K" else "inputs",
            )  # fmt: skip
            for ranges in (None, span, 0.5 * span):
                written = writes.write(t, streams, ranges, by_head=by_head)
                assert written is not None
                values, variance, unit = written
                if ranges is not None and ranges is not span:
                    assert not torch.equal(values if axis == "K" else values.mT, expected.values)
                    continue
                assert torch.equal(values if axis == "K" else values.mT, expected.values)
                assert torch.equal(unit, expected.unit.expand_as(unit))
                assert (variance is None) == (expected.variance is None)
                if variance is not None and expected.variance is not None:
                    assert torch.equal(variance if axis == "K" else variance.mT, expected.variance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["samples", "tokens"])
@pytest.mark.parametrize("axis", ["K", "V"])
@pytest.mark.parametrize("name", ["one half with noise", "clamped at a ceiling", "both halves with noise", "copies"])
def test_cells_hold_the_same_digits(name: str, axis: str, kind: str, shape: tuple[int, ...]) -> None:
    spec, t, streams = hardware(name), tokens_of(shape), streams_of(kind, shape[2])
    writes, span = TokenWrites.of(spec, read_noise=True), magnitude_range(t, (-2, -1), 100)
    assert writes is not None
    expected = write(
        t if axis == "K" else t.mT, spec, codec=Codec(spec), code_range=span, w_range=span, stream=streams,
        fault_stream=Stream(0), major="outputs" if axis == "K" else "inputs",
    )  # fmt: skip
    for ranges in (None, span):
        written = writes.digits(t, streams, ranges, by_head=True)
        assert written is not None
        assert torch.equal(written[0] if axis == "K" else written[0].mT, expected.digits)
        assert torch.equal(written[1], expected.unit.expand_as(written[1]))


def test_a_matrix_of_zeros_has_a_unit() -> None:
    spec = hardware("both halves with noise")
    writes = TokenWrites.of(spec, read_noise=False)
    assert writes is not None
    written = writes.write(torch.zeros(3, 2, 5, 4), SampleStreams(SAMPLES), None, by_head=True)
    assert written is not None
    assert bool((written[2] == torch.tensor(1.0) / spec.max_code).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("given", [True, False])
def test_what_is_not_finite_is_refused_in_the_words_of_other_code(bad: float, given: bool) -> None:
    spec, t = hardware("one half with noise"), tokens_of(SHAPES[2]).clone()
    t[1, 2, 66, 32] = bad
    writes, span = TokenWrites.of(spec, read_noise=False), torch.ones(1, 1, 1, 1)
    assert writes is not None
    messages = []
    with pytest.raises(BadInput) as caught:
        writes.write(t, SampleStreams(SAMPLES), span if given else None, by_head=True)
    messages.append(str(caught.value))
    with pytest.raises(BadInput) as caught:
        write_folded(t, spec, codec=Codec(spec), code_range=span, stream=SampleStreams(SAMPLES))
    messages.append(str(caught.value))
    assert messages[0] == messages[1]
    with pytest.raises(BadInput, match="the range of a matrix to be programmed is -1"):
        writes.write(tokens_of(SHAPES[2]), SampleStreams(SAMPLES), -span, by_head=True)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"cell": cell(write_noise=UNIFORM, drift=PCM_DRIFT), "age": 1e4},
        {"cell": cell(write_noise=UNIFORM, read_noise=FLICKER)},
        {"cell": cell(write_noise=UNIFORM), "encoding": "offset"},
        {"cell": cell(write_noise=UNIFORM), "residual": {"bits": 6}},
        HARDWARE["uneven levels"],
    ],
)
def test_other_hardware_is_left_to_other_code(changed: dict[str, Any]) -> None:
    assert TokenWrites.of(array(**changed), read_noise=True) is None


def test_other_streams_and_counted_writes_are_left_to_other_code() -> None:
    writes, t = TokenWrites.of(hardware("copies"), read_noise=False), tokens_of(SHAPES[0])
    assert writes is not None
    other = [
        SampleStreams(SAMPLES, lengths=(5, 2, 4)),
        SampleStreams(SAMPLES[:2]),
        TokenStreams(SAMPLES, numbers=((0, 1),) * 3),
        TokenStreams(SAMPLES, numbers=(tuple(range(5)),) * 3, growing=True),
    ]
    assert all(writes.write(t, streams, None, by_head=True) is None for streams in other)
    with event_counter.counting():
        assert writes.write(t, SampleStreams(SAMPLES), None, by_head=True) is None
