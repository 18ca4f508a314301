"""What the memory of a GPU must hold, by hand, and the refusal of what does not fit."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.memory.gpu_memory import MemoryUse, memory_use
from ohmformer.cost.placement import place
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, ExactEngine, Price, Work
from ohmformer.registry import _kinds, register
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import Workload

A100 = load(Accelerator, "a100_sxm_40gb")
LLAMA_WEIGHTS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 2 * 128256 * 4096


def use(work: Workload, hardware: Accelerator = A100) -> MemoryUse:
    choice = EngineChoice(hardware)
    return memory_use(work, hardware, [(choice.layer(layer.ops, frozenset()), 1) for layer in work.layers()])


def decoding(**lengths: int) -> Workload:
    return shapes("llama-3-8b", phase="decode", **lengths)


def test_weights_and_cache_of_a_decoder() -> None:
    found = use(decoding(context=999, batch=4))
    assert found.weights == 2 * LLAMA_WEIGHTS
    assert found.kv == 2 * 32 * 2 * 4 * 1000 * 1024
    assert found.activations == 2 * 4 * (4096 + 128256)  # the head
    assert found.total == found.weights + found.kv + found.activations


def test_an_encoder_keeps_one_layer_at_a_time() -> None:
    found = use(shapes("bert-base", tokens=128, batch=16))
    assert found.weights == 2 * (12 * (4 * 768 * 768 + 2 * 768 * 3072) + 30522 * 768)
    assert found.kv == 2 * 2 * 16 * 128 * 768
    assert found.activations == 2 * 16 * 128 * (768 + 3072)


def test_a_prefill_keeps_what_later_tokens_need() -> None:
    assert use(shapes("gpt2", tokens=300, batch=3)).kv == 2 * 12 * 2 * 3 * 300 * 768


def test_scores_take_memory_where_attention_is_not_fused() -> None:
    work = shapes("bert-base", tokens=512, batch=8)
    plain = use(work, replace(A100, "engine.fusion", "none"))
    assert plain.activations == 2 * 8 * 12 * 512 * (64 + 512)
    assert use(work).activations < plain.activations


def test_weights_of_other_widths() -> None:
    packed = replace(A100, "engine.bytes_per_weight", 0.5)
    one, other = use(decoding(context=999), packed), use(decoding(context=999))
    assert (one.weights, one.kv) == (other.weights / 4, other.kv)


def test_weights_that_modules_share_count_once() -> None:
    work = shapes("gpt2", tokens=8)
    choice = EngineChoice(A100)
    head = next(op for op in work.ops if op.name == "head")
    layers = [(choice.layer(layer.ops, frozenset({id(head)})), 1) for layer in work.layers()]
    assert use(work).weights - memory_use(work, A100, layers).weights == 2 * 50257 * 768


REFUSED: list[tuple[str, Workload, str]] = [
    ("gtx_1060", decoding(context=100), r"projection.memory = 6.442 GB: 'Llama 3 8B' with batch = 1 needs 32.15 GB"),
    (
        "a100_sxm_40gb",
        decoding(context=8000, batch=32),
        r"memory = 42.95 GB: .* = 32 needs 49.63 GB \(weights 16.06",
    ),
    ("t4", shapes("llama-2-7b", tokens=2048, batch=4), r"memory = 17.18 GB: .* keys and values 4.295 GB"),
]


@pytest.mark.parametrize(("name", "work", "said"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_bytes(name: str, work: Workload, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        place(work, load(Accelerator, name))
    line = str(caught.value)
    assert line.count("\n") == 0
    assert line.endswith("take a GPU with more memory, smaller values, a smaller batch or a shorter sequence")


def test_what_just_fits_is_placed() -> None:
    work = decoding(context=999, batch=4)
    exact = replace(A100, "engine.memory", use(work).total)
    assert place(work, exact).area == 826e-6
    with pytest.raises(BadInput, match="needs"):
        place(work, replace(A100, "engine.memory", use(work).total - 1))


def test_a_mixed_machine_counts_what_its_gpu_holds() -> None:
    """Attention on crossbars keeps K and V there; the GPU's die, idle power and memory still count."""
    xformer = load(Accelerator, "xformer_tvlsi_2023")
    mixed = replace(xformer, "projection", A100.projection)
    work: Any = shapes("bert-base", tokens=128)
    found, own = place(work, mixed), place(work, xformer)
    assert use(work, mixed).kv == 0
    assert found.area > 826e-6
    assert 88 < found.power < 88 + own.power
    with pytest.raises(BadInput, match=r"hardware.projection.memory = 100 MB"):
        place(work, replace(mixed, "projection.memory", 1e8))


def test_an_exact_engine_beside_a_gpu_has_its_area() -> None:
    """Attention on an engine of its own, beside a GPU and without any tile."""

    @register
    class Beside(ExactEngine):
        kind: Literal["beside"] = "beside"

        def price(self, work: Work) -> Price:
            return Price(1e-6, {"beside": 1e-9})

        def own_area(self) -> float:
            return 2e-6

    try:
        mixed = replace(replace(A100, "attention.key", {"kind": "beside"}), "attention.value", {"kind": "beside"})
        chip = load(Accelerator, "xformer_tvlsi_2023").chip
        found = place(shapes("bert-base", tokens=128), replace(mixed, "chip", chip))
        assert found.area == pytest.approx(828e-6, rel=1e-12)
    finally:
        del _kinds["engine"]["beside"]
