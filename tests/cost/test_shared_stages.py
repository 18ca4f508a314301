"""Stages that accelerators have in common are priced once, and an accelerator that differs is priced anew."""

from __future__ import annotations

import pytest

from ohmformer.cost.layer_stages import _stage
from ohmformer.cost.placement import Placement, place
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.hardware.spec import Accelerator, Attention, GpuEngine
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

XFORMER, A100 = load(Accelerator, "xformer_tvlsi_2023"), load(Accelerator, "a100_sxm_40gb")
GPU = A100.projection
assert isinstance(GPU, GpuEngine)
WORK = shapes("bert-base", tokens=64, batch=2)


def with_attention(**roles: object) -> Accelerator:
    """X-Former with some roles of attention on the GPU; the rest keeps its engine."""
    attention = XFORMER.attention
    engines = {"key": attention.key, "value": attention.value, **roles}
    return Accelerator(
        projection=XFORMER.projection,
        attention=Attention(arrays="shared", **engines),  # type: ignore[arg-type]
        chip=XFORMER.chip,
    )


def times(placement: Placement) -> list[float]:
    return [stage.time(64) for stage in placement.layers[1].stages]


def test_a_kernel_of_attention_is_launched_once_only_if_both_halves_are_on_the_gpu() -> None:
    """The engine of P V and the chip are the same objects in both; only the engine of Q K^T differs."""
    _stage.cache_clear()
    alone = times(place(WORK, with_attention(value=GPU)))
    _stage.cache_clear()
    together = times(place(WORK, with_attention(key=GPU, value=GPU)))
    assert times(place(WORK, with_attention(value=GPU))) == alone, "not what the other accelerator left in the cache"
    assert times(place(WORK, with_attention(key=GPU, value=GPU))) == together


def test_a_changed_gpu_is_priced_anew() -> None:
    found = explore((WORK, replace(A100, "engine.peak", peak), LayerSerial()) for peak in (1e14, 2e14, 3e14))
    assert sorted(found.latency, reverse=True) == list(found.latency)
    assert len(set(found.latency)) == 3


@pytest.mark.parametrize("roles", [("projection",), ("attention.key", "attention.value"), ("attention.value",)])
@pytest.mark.parametrize("flow", [LayerSerial(), SequenceBlocking(block=16), LayerOverlap(block=16)])
@pytest.mark.parametrize("name", ["xformer_tvlsi_2023", "nvm_ideal"])
def test_gpus_beside_arrays_agree_in_closed_form_and_event_engine(
    name: str, flow: LayerSerial | SequenceBlocking | LayerOverlap, roles: tuple[str, ...]
) -> None:
    hardware = load(Accelerator, name)
    for role in roles:
        hardware = replace(hardware, role, GPU)
    for work in (WORK, shapes("gpt2", phase="decode", context=32, batch=3)):
        run, found = simulate(work, hardware, flow), explore([(work, hardware, flow)])
        assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
        assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)
        assert found.area[0] == run.placement.area


def test_layers_wait_for_softmax_units_beside_arrays_but_not_on_a_gpu() -> None:
    arrays, decode = load(Accelerator, "nvm_ideal"), shapes("gpt2", phase="decode", context=32, batch=3)
    weights_on_gpu = replace(arrays, "projection", GPU)
    assert place(decode, weights_on_gpu).shares_softmax, "attention is in arrays, beside the softmax units of the chip"
    keys_on_gpu = replace(arrays, "attention.key", GPU)
    assert not place(decode, keys_on_gpu).shares_softmax
