"""Several GPUs against published rates of one token at a time: nothing was fitted to them."""

from __future__ import annotations

import pytest

from ohmformer.dataflow.simulate import simulate
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

PUBLISHED = {
    ("llama-2-7b", 2): 168.84,
    ("llama-2-7b", 4): 254.02,
    ("llama-2-7b", 8): 328.43,
    ("llama-2-70b", 2): 21.32,
    ("llama-2-70b", 4): 38.01,
    ("llama-2-70b", 8): 62.50,
}
"""(Model, number of A100 80 GB that share each layer) -> tokens/s of one request (gpt-fast, README, a prompt of 5)."""


@pytest.mark.parametrize(("model", "gpus"), PUBLISHED)
def test_tokens_per_second_of_gpus_that_share_each_layer(model: str, gpus: int) -> None:
    hardware = replace(load(Accelerator, "a100_sxm_80gb_x8"), "system.degree", gpus)
    run = simulate(shapes(model, phase="decode", context=105), hardware)
    assert 1 / run.latency / PUBLISHED[model, gpus] == pytest.approx(1.07, abs=0.1)
    assert run.placement.machine is not None
    assert run.placement.machine.chips == gpus


def test_shares_of_a_large_model_fit_where_the_whole_does_not() -> None:
    """70 billion weights in FP16 take 138 GB: at least two GPUs of 80 GiB."""
    work = shapes("llama-2-70b", phase="decode", context=105)
    area = [
        simulate(work, replace(load(Accelerator, "a100_sxm_80gb_x8"), "system.degree", gpus)).area for gpus in (2, 8)
    ]
    assert area == pytest.approx([2 * 826e-6, 8 * 826e-6])
