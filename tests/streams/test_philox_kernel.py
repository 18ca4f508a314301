"""The Triton kernel gives the numbers of the implementation in PyTorch."""

import pytest
import torch

from ohmformer.streams import philox
from ohmformer.streams.places import Places, padded_rows, token_rows, whole_rows
from tests.gpu.kernels import KERNEL_DEVICE, needs_triton, sizes_compiled

SEEDS = (6197007067532723406, 1, (1 << 63) - 1)
CASES = {
    "whole": whole_rows(SEEDS, (3, 7, 211)),
    "several programs": whole_rows(SEEDS[:1], (2, 1_300)),
    "lengths": padded_rows(SEEDS, (3, 2, 5, 4), (5, 0, 2), None),
    "padding": padded_rows(SEEDS, (3, 2, 5, 4), None, (4, 3, 1), ((0, 1, 4), (2,), (0, 1, 2, 3, 4))),
    "tokens": token_rows(SEEDS, ((0, 5), (-1, 2**31), (7, 8)), (3, 2, 2, 5), growing=False),
    "growing": token_rows(SEEDS, ((0, 5), (-1, 6), (7, 8)), (3, 2, 2, 5), growing=True),
}


@needs_triton
@pytest.mark.parametrize("kind", [philox.NORMAL, philox.UNIFORM])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_draws_what_pytorch_draws(name: str, kind: int) -> None:
    from ohmformer.streams import philox_kernel

    places: Places = CASES[name].to(KERNEL_DEVICE)
    for nth in (0, 1, 16):
        found, expected = (torch.zeros(places.size, device=KERNEL_DEVICE) for _ in range(2))
        philox_kernel.draw(found, places, nth, kind)
        philox.draw(expected, places, nth, kind)
        assert expected.count_nonzero() >= 0.99 * int(places.rows[:, 3].sum())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs_triton
def test_the_kernel_leaves_values_of_no_stream_alone() -> None:
    from ohmformer.streams import philox_kernel

    places = padded_rows(SEEDS, (3, 1, 5, 4), (5, 0, 2), None).to(KERNEL_DEVICE)
    out = torch.full((places.size,), 9.0, device=KERNEL_DEVICE)
    philox_kernel.draw(out, places, 0, philox.NORMAL)
    assert int((out == 9).sum()) == 60 - 7 * 4


@pytest.mark.slow
@needs_triton
def test_the_kernel_compiles_for_a_gpu() -> None:
    numbers = dict.fromkeys(("nth", "programs", "s2", "s1", "s0", "longest_count"), "i32")
    types = {"out": "*fp32", "rows": "*i64", "shown": "*i64", **numbers}
    cases = [
        (types, {"KIND": kind, "NEXT": following, "SHOWN": shown, "COLUMNS": 7, "BLOCK": 256})
        for kind in (philox.NORMAL, philox.UNIFORM)
        for following, shown in ((True, False), (False, False), (False, True))
    ]
    ones = dict.fromkeys(
        ("programs", "s1", "s0", "longest_count"), 1
    )  # Triton compiles numbers that are 1 as constants
    cases.append((types, {**ones, "KIND": 0, "NEXT": False, "SHOWN": True, "COLUMNS": 7, "BLOCK": 256}))
    assert min(sizes_compiled("ohmformer.streams.philox_kernel", "fill", cases)) > 1_000
