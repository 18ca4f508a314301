"""Stuck cells: the right number, and always the same cells."""

from math import sqrt

import pytest
import torch

from ohmformer.array import program
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream
from tests.build import UNIFORM, array, cell

CHIP = Stream(0, "chip", 1)


def hardware(**fields: object) -> Crossbar:
    return array(cell=cell(faults={"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.03}, **fields), rows=16, columns=16)


def stuck(cells: torch.Tensor) -> torch.Tensor:
    """By cell: -1 if stuck at G_min, 1 if stuck at G_max, else 0. A noisy cell that works never holds these exactly."""
    at = [torch.isclose(cells, torch.tensor(level, dtype=cells.dtype), rtol=0, atol=1e-6) for level in (0.0, 3.0)]
    return at[1].int() - at[0].int()


def test_frequencies() -> None:
    """Within 5 standard deviations of a binomial."""
    cells = program(torch.full((200, 300), 0.5), hardware(write_noise=UNIFORM), w_range=1.0, fault_stream=CHIP).digits
    found = stuck(cells.double())
    for value, probability in ((-1, 0.1), (1, 0.03)):
        error = sqrt(probability * (1 - probability) / cells.numel())
        assert abs(float((found == value).double().mean()) - probability) < 5 * error


def test_faults_stay_when_noise_changes_and_are_those_of_the_chip() -> None:
    w = torch.full((40, 40), 0.5)
    noisy = hardware(write_noise=UNIFORM)
    first, again = (program(w, noisy, stream=seed, fault_stream=CHIP).digits for seed in (1, 2))
    assert not torch.equal(first, again)
    assert torch.equal(stuck(first), stuck(again))
    other = program(w, noisy, stream=1, fault_stream=Stream(0, "chip", 2)).digits
    assert not torch.equal(stuck(first), stuck(other))


def test_samples_share_faults_whatever_is_written() -> None:
    streams = SampleStreams(tuple(Stream(0, "sample", n) for n in range(3)))
    w = torch.full((3, 2, 40, 40), 0.5)
    found = stuck(program(w, hardware(write_noise=UNIFORM), stream=streams, fault_stream=CHIP).digits)
    assert torch.equal(found[:, :, 0], found[:, :, 1])
    assert torch.equal(found[:, :, 0], found[:, :, 2])
    assert not torch.equal(found[:, :, 0, 0], found[:, :, 0, 1]), "each head has its own arrays"


@pytest.mark.parametrize("encoding", ["differential", "offset"])
def test_a_cell_is_stuck_whatever_the_length_of_the_sequence(encoding: str) -> None:
    noisy = array(
        cell=cell(faults={"stuck_at_g_min": 0.2}, write_noise=UNIFORM), rows=16, columns=16, encoding=encoding
    )
    long, short = (program(torch.full((n, 20), 0.5), noisy, fault_stream=CHIP) for n in (50, 23))
    assert torch.equal(stuck(long.digits)[..., :23, :], stuck(short.digits))
    wide, narrow = (program(torch.full((20, n), 0.5), noisy, fault_stream=CHIP) for n in (50, 23))
    assert torch.equal(stuck(wide.digits)[..., :23], stuck(narrow.digits))
    if long.reference is not None and short.reference is not None:
        assert torch.equal(stuck(long.reference)[..., :2, :], stuck(short.reference))


def test_slices_that_are_left_out_shift_no_fault_and_no_noise() -> None:
    from ohmformer.array import write

    codes = torch.randint(-63, 64, (7, 9), generator=torch.Generator().manual_seed(0)).float()
    noisy = hardware(write_noise=UNIFORM)
    all_slices, three = (write(codes, noisy, stream=4, max_code=code, fault_stream=CHIP).digits for code in (255, 63))
    assert all_slices.shape[1] == 4
    assert torch.equal(all_slices[:, :3], three)


def test_faults_belong_to_a_chip() -> None:
    streams = SampleStreams((Stream(0),))
    with pytest.raises(BadInput, match="faults belong to a chip"):
        program(torch.ones(1, 3, 3), hardware(), stream=streams)


def test_stuck_cells_hold_what_they_are_stuck_at() -> None:
    low = array(cell=cell(faults={"stuck_at_g_min": 1.0}))
    high = array(cell=cell(faults={"stuck_at_g_max": 1.0}))
    w = torch.randn(5, 6)
    torch.testing.assert_close(program(w, low).digits, torch.zeros(2, 4, 5, 6))
    torch.testing.assert_close(program(w, high).digits, torch.full((2, 4, 5, 6), 3.0))
