"""What `program` and `write` accept, refuse and keep."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.array import mvm, program, write, write_folded
from ohmformer.array.aging.unaged import write_unaged
from ohmformer.array.codes.codec import Codec, SoftClip
from ohmformer.array.gaussian_writes.one_number import write_normal
from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream
from tests.build import PCM_DRIFT, SQRT_RANGE, UNIFORM, array, cell

NOISY = array(cell=cell(write_noise=SQRT_RANGE))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("w_range", [None, 1.0])
def test_a_matrix_that_is_not_finite_is_refused(bad: float, w_range: float | None) -> None:
    w = torch.zeros(3, 4)
    w[1, 2] = bad
    with pytest.raises(BadInput, match="NaN or infinity"):
        program(w, NOISY, w_range=w_range)


REFUSED: dict[str, Callable[[], object]] = {
    "no matrix": lambda: program(torch.ones(3), NOISY),
    "a negative range": lambda: program(torch.ones(3, 3), NOISY, w_range=-1.0),
    "a range by input": lambda: program(torch.ones(3, 3), NOISY, w_range=torch.ones(1, 3)),
    "a range for a codec without a codec": lambda: write(torch.ones(3, 3), NOISY, code_range=torch.ones(1, 3)),
    "a code beyond the slices": lambda: write(torch.full((2, 2), 64.0), NOISY, max_code=63),
    "a code beyond the array": lambda: write(torch.full((2, 2), 256.0), NOISY),
    "a code that is NaN": lambda: write(torch.full((2, 2), float("nan")), NOISY),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_bad_input_is_refused(case: str) -> None:
    with pytest.raises(BadInput):
        REFUSED[case]()


def test_a_matrix_of_zeros_stays_one() -> None:
    programmed = program(torch.zeros(3, 4), NOISY)
    assert torch.equal(mvm(torch.randn(2, 4), programmed), torch.zeros(2, 3))


def test_a_range_too_small_for_a_float_is_no_division_by_zero() -> None:
    y = mvm(torch.full((1, 2), 1e-45), program(torch.full((2, 2), 1e-45), array()))
    assert bool(torch.isfinite(y).all())


def test_integer_matrices_and_one_vector() -> None:
    programmed = program(torch.tensor([[1, -2], [3, 0]]), array(bits=2, bits_per_cell=2))
    y = mvm(torch.tensor([127.0, 1.0]), programmed, x_range=127.0)
    torch.testing.assert_close(y, torch.tensor([125.0, 381.0]))


def test_parameters_are_programmed_without_their_gradients() -> None:
    w = torch.nn.Parameter(torch.randn(3, 4))
    assert not mvm(torch.randn(2, 4, requires_grad=True), program(w, NOISY, stream=1)).requires_grad


def test_each_sample_has_noise_of_its_own_and_keeps_it_in_any_batch() -> None:
    w = torch.randn(1, 2, 9, 5).expand(4, 2, 9, 5)
    streams = SampleStreams(tuple(Stream(0, "sample", n) for n in range(4)))
    together = program(w, NOISY, stream=streams).digits
    assert not torch.equal(together[:, :, 0], together[:, :, 1])
    for n, stream in enumerate(streams.streams):
        alone = program(w[n : n + 1], NOISY, stream=SampleStreams((stream,))).digits
        assert torch.equal(alone[:, :, 0], together[:, :, n])


def test_the_axis_that_is_written_piece_by_piece_runs_first() -> None:
    hardware = array(cell=cell(write_noise=UNIFORM))
    w = torch.full((6, 8), 0.5)
    by_outputs = program(w, hardware, w_range=1.0, stream=3).digits
    by_inputs = program(w.T.contiguous(), hardware, w_range=1.0, stream=3, major="inputs").digits
    assert torch.equal(by_outputs, by_inputs.transpose(-2, -1))


def test_the_same_stream_writes_the_same_noise() -> None:
    w = torch.randn(5, 6)
    first, again, other = (program(w, NOISY, stream=seed).digits for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_ideal_cells_hold_the_digits() -> None:
    """-201 = -(3 * 64 + 0 * 16 + 2 * 4 + 1)."""
    cells = write(torch.tensor([[-201.0]]), array()).digits
    assert cells[1].flatten().tolist() == [1, 2, 0, 3]
    assert cells[0].flatten().tolist() == [0, 0, 0, 0]
    shifted = write(torch.tensor([[-1.0]]), array(encoding="offset"))
    assert shifted.digits.flatten().tolist() == [3, 3, 3, 1]
    assert shifted.reference is not None
    assert shifted.reference.flatten().tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    w, x = torch.randn(5, 6).to(dtype), torch.randn(2, 6).to(dtype)
    halves, singles = program(w, NOISY, stream=1), program(w.float(), NOISY, stream=1)
    assert torch.equal(halves.digits, singles.digits)
    assert torch.equal(mvm(x, halves), mvm(x.float(), singles))
    assert mvm(x, halves).dtype == torch.float32
    codes = torch.full((2, 3), 100.0)
    assert torch.equal(write(codes.to(dtype), NOISY, stream=1).digits, write(codes, NOISY, stream=1).digits)
    folded = write_folded(codes.to(dtype), NOISY, stream=1).values
    assert torch.equal(folded, write_folded(codes, NOISY, stream=1).values)


def test_double_precision_is_kept() -> None:
    assert mvm(torch.ones(2, 3).double(), program(torch.ones(3, 3).double(), NOISY)).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: program(torch.eye(3).to_sparse(), NOISY), "program: w is sparse or nested"),
        (lambda: program(torch.ones(0, 3), NOISY), r"program: w has the shape \(0, 3\)"),
        (lambda: write(torch.ones(3, 0), NOISY), r"write: codes has the shape \(3, 0\)"),
        (lambda: program(np.ones((3, 3)), NOISY), "program: w is ndarray; give a torch.Tensor"),  # type: ignore[arg-type]
        (lambda: mvm(np.ones((2, 3)), program(torch.ones(3, 3), NOISY)), "mvm: x is ndarray"),  # type: ignore[arg-type]
        (lambda: program(torch.ones(3, 3), NOISY, w_range=-1.0), "range of a matrix to be programmed is -1: must be 0"),
        (lambda: program(torch.ones(3, 3), NOISY, w_range=float("nan")), "NaN or infinity"),
        (lambda: mvm(torch.ones(3), program(torch.ones(3, 3), NOISY), x_range=-2.0), "range of an input .* is -2"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()


WRITES: dict[str, Callable[..., Any]] = {
    "write": write,
    "write_folded": write_folded,
    "write_normal": write_normal,
    "write_unaged": partial(write_unaged, drifts=False),
}
CLIPS = (SoftClip(0.02, 0.2, 51), None, SoftClip(0.0, 0.1, 25))


@pytest.mark.parametrize(
    "codec", [Codec(NOISY), Codec(NOISY, CLIPS), Codec(NOISY, CLIPS[:1], round_last=True, trade=0.1)]
)
@pytest.mark.parametrize("name", list(WRITES))
def test_values_are_written_as_the_codes_of_their_codec(name: str, codec: Codec) -> None:
    """Also if the codec's ranges differ along the inputs, and the number of slices follows from its clips."""
    values = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    code_range = values.abs().amax(-2, keepdim=True)
    codes = codec.codes(values, code_range)
    options: dict[str, Any] = {"w_range": 2.0, "stream": SampleStreams((Stream(1), Stream(2)))}
    expected = WRITES[name](codes, NOISY, max_code=codec.max_code, **options)
    found = WRITES[name](values, NOISY, codec=codec, code_range=code_range, **options)
    for field, tensor in vars(expected).items():
        assert not isinstance(tensor, torch.Tensor) or torch.equal(getattr(found, field), tensor), field


def test_codes_are_made_once_where_drift_is_compensated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells just after the write, which the compensation compares with, hold the same codes."""
    drifting = array(cell=cell(write_noise=UNIFORM, drift=PCM_DRIFT), age=1e3, drift_compensation="column")
    made, codes_of = [], Codec.codes
    monkeypatch.setattr(Codec, "codes", lambda *args, **how: made.append(1) or codes_of(*args, **how))
    program(torch.randn(3, 4), drifting, stream=1)
    write_folded(torch.randn(3, 4), drifting, stream=1, codec=Codec(drifting), w_range=4.0)
    assert len(made) == 2
