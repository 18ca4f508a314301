"""Errors that are corrected in weights that are written later: against what each cell holds, and what it brings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer import BadInput
from ohmformer.array import crossbar
from ohmformer.array.event_counter import counting
from ohmformer.array.folded import fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.residual.feedback import GROUP, RIDGE, ErrorFeedback, fit_feedback
from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Crossbar
from ohmformer.mapping.write_effort import effort
from ohmformer.streams import Stream
from ohmformer.study.read_study import make_study
from tests.array.residual.test_writing import pairs

O, I = 12, 300  # more than two blocks of inputs, the last group of which is not full
STUCK = {"kind": "stuck_at", "stuck_at_g_min": 0.02, "stuck_at_g_max": 0.01}
DRIFT = {"kind": "power_law", "t0": 1.0, "nu": 0.05}


def correlated(count: int = 4_000) -> Tensor:
    """Inputs [count, I] of which a few directions have most of the power, and some are almost never used."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(I, I, generator=generator) * torch.logspace(0, -2, I)[:, None]
    return torch.randn(count, I, generator=generator) @ mix * torch.linspace(0.01, 1.0, I)


INPUTS = correlated()
FEEDBACK = fit_feedback(INPUTS.T @ INPUTS)


def codes(array: Crossbar) -> Tensor:
    return (torch.rand(O, I, generator=torch.Generator().manual_seed(1)) - 0.5) * 1.2 * array.max_code


def held(array: Crossbar, feedback: ErrorFeedback | None, seed: int = 3) -> Tensor:
    """What the cells hold, in codes."""
    options: dict[str, Any] = {"stream": Stream(seed), "fault_stream": Stream(7), "w_range": float(array.max_code)}
    return write_folded(codes(array), array, feedback=feedback, **options).values


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"radix": 1, "redundancy": 2},
        {"cell.faults": STUCK},
        {"cell.write_noise": {"kind": "sqrt_range", "sigma": 0.5}},
    ],
)
def test_what_is_missing_in_a_weight_is_added_to_later_ones(changes: dict[str, Any]) -> None:
    array = pairs(residual={"feedback": True}, **changes)
    target, found = codes(array)[:, FEEDBACK.order], held(array, FEEDBACK)[:, FEEDBACK.order]
    shares, most = FEEDBACK.shares.float(), array.capacity(array.slices())
    missing = torch.zeros_like(target)
    for first in range(0, I, GROUP):
        group = slice(first, first + GROUP)
        wanted = (target[:, group] + missing[:, :first] @ shares[:first, group]).clamp(-most, most)
        missing[:, group] = wanted - found[:, group]
    # These targets are those of the cells: the last cell leaves no more than its own error.
    request = crossbar.write_request(
        codes(array), array, stream=Stream(3), fault_stream=Stream(7), w_range=1.0, feedback=FEEDBACK
    )
    torch.testing.assert_close(
        request.codes[:, FEEDBACK.order], found + missing, rtol=0.0, atol=2e-3 * float(array.max_code)
    )
    assert float((request.codes - codes(array)).abs().max()) > 1.0


def test_the_error_of_the_product_falls_as_the_best_prediction_says() -> None:
    array = pairs(residual={"feedback": True}, **{"cell.write_noise": {"kind": "uniform", "sigma": 0.3}})
    target = codes(array)
    errors = {True: 0.0, False: 0.0}
    for seed in range(12):
        for corrects in errors:
            missing = target - held(array, FEEDBACK if corrects else None, seed)
            errors[corrects] += float((INPUTS @ missing.T).square().mean())
    moments = (INPUTS.T @ INPUTS).double()
    moments = moments[FEEDBACK.order][:, FEEDBACK.order]
    moments += RIDGE * moments.diagonal().mean() * torch.eye(I, dtype=torch.float64)
    left = torch.linalg.cholesky(moments.flip(0, 1)).diagonal().square().mean()  # of an input, given all later ones
    predicted = float(moments.diagonal().mean() / left)
    gain = errors[False] / errors[True]
    assert predicted > 3
    # Larger targets have larger errors, and a group is corrected as a whole: both cost a little.
    assert 0.6 * predicted < gain < 1.6 * predicted


def test_other_levels_write_the_same_cells() -> None:
    for changes in ({}, {"cell.read_noise": {"kind": "uniform", "sigma": 0.05}}, {"age": 50.0, "cell.drift": DRIFT}):
        array = pairs(residual={"feedback": True, "bits": 6}, **changes)
        options: dict[str, Any] = {"stream": Stream(3), "w_range": float(array.max_code), "feedback": FEEDBACK}
        by_cell = fold(crossbar.write(codes(array), array, **options), read_noise=False).values
        torch.testing.assert_close(by_cell, write_folded(codes(array), array, **options).values, rtol=1e-5, atol=1e-3)


def test_drift_comes_after_the_read_back() -> None:
    """The corrections are those of cells that do not drift."""
    young = pairs(residual={"feedback": True}, **{"cell.drift": DRIFT})
    old = of.replace(young, "age", 1e6)
    targets = [
        crossbar.write_request(codes(each), each, stream=Stream(3), w_range=1.0, feedback=FEEDBACK).codes
        for each in (young, old)
    ]
    assert torch.equal(*targets)


def test_inputs_that_have_nothing_in_common_correct_nothing() -> None:
    feedback = fit_feedback(torch.diag(torch.tensor([1.0, 4.0, 0.0, 2.0])))
    assert feedback.order.tolist() == [1, 3, 0, 2]
    assert not feedback.shares.any()
    assert not fit_feedback(torch.zeros(3, 3)).shares.any()


def test_the_second_of_two_equal_inputs_takes_all_that_the_first_misses() -> None:
    feedback = fit_feedback(torch.ones(2, 2))
    assert float(feedback.shares[0, 1]) == pytest.approx(1 / (1 + RIDGE), rel=1e-3)


def test_the_last_cell_is_read_back_too() -> None:
    for feedback in (False, True):
        array = pairs(residual={"feedback": feedback})
        slices = array.slices()
        with counting() as counter:
            crossbar.write(codes(array), array, stream=Stream(0), w_range=1.0)
        reads = O * I * 2 * (slices - 1 + feedback)
        assert counter.cell_reads == reads
        assert counter.cell_writes == O * I * 2 * slices
        found = effort(array, slices)
        assert math.isclose(found.reads * counter.cell_writes, reads)
        assert found.row_reads == slices - 1 + feedback


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"projection.array.residual": {"feedback": True}}, r"^hardware.projection.array.residual.feedback = true"),
        ({"attention.array.residual": {"feedback": True}}, r"^hardware.attention.key.array.residual.feedback = true"),
    ],
)
def test_corrections_are_a_mitigation_of_weights(change: dict[str, Any], words: str) -> None:
    hardware = of.load("clipformer_tcad_2024")
    for path, value in change.items():
        hardware = of.replace(hardware, path, value)
    model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with pytest.raises(BadInput, match=words) as error:
        of.convert(model, hardware, sample=torch.randn(1, 3, 8))
    assert "\n" not in str(error.value)


def test_a_study_names_the_field_of_its_hardware() -> None:
    """Not a mitigation, which does not hold it."""
    study = {
        "name": "s",
        "model": {"source": "bundled:vit_tiny_mnist"},
        "task": {"source": "mnist_5k"},
        "hardware": {"base": "clipformer_tcad_2024"},
    }
    with pytest.raises(BadInput, match=r"^study: hardware.projection.array.residual.feedback = true"):
        make_study(study, ["hardware.projection.array.residual={ feedback = true }"])


def test_k_and_v_come_token_by_token() -> None:
    for make in (
        lambda: of.Conditioning(residual=Residual(feedback=True)),
        lambda: of.KVBudget(residual=Residual(feedback=True)),
    ):
        with pytest.raises(BadInput, match="tokens of K and V come one by one") as error:
            make()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (pairs(), (O, I)),
        (pairs(residual={}), (O, I)),
        (pairs(residual={"feedback": True}), (O, I - 1)),
        (pairs(residual={"feedback": True}), (2, O, I)),
    ],
)
def test_corrections_that_do_not_fit_a_matrix_are_refused(array: Crossbar, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"^write: feedback: .*leave feedback out") as error:
        crossbar.write(torch.zeros(shape), array, feedback=FEEDBACK)
    assert "\n" not in str(error.value)
