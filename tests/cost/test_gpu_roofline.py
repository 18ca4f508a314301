"""Time, energy and power of kernels by hand, and what must hold for every GPU."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.cost.gpu_kernels import Kernel
from ohmformer.cost.gpu_roofline import bytes_moved, kernels_cost
from ohmformer.dataflow.simulate import Run, simulate
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, GpuEngine
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes

A100 = load(Accelerator, "a100_sxm_40gb")
T4 = load(Accelerator, "t4")
FIGURES = {
    **{"peak": 100e12, "processors": 10, "bandwidth": 1e12, "memory": 80e9, "bytes_per_value": 2.0, "power": 300.0},
    **{"area": 8e-4, "technology": 7.0, "idle_share": 0.2, "efficiency": 0.5, "attention_efficiency": 0.25},
    **{"memory_efficiency": 0.8, "launch_time": 3e-6, "energy_per_op": 2e-12, "energy_per_byte": 30e-12},
}
ROUND = GpuEngine.model_validate({"kind": "gpu", **FIGURES})
"""A GPU with round figures."""


def gpu(**changes: object) -> GpuEngine:
    return GpuEngine.model_validate({"kind": "gpu", **FIGURES, **changes})


def seconds(kernel: Kernel, engine: GpuEngine = ROUND) -> float:
    return kernels_cost([kernel], engine).latency


def test_each_roof_by_hand() -> None:
    """Operations: 2e10 at half of 1e14 a second. Bytes: 4e8 at 0.8 TB/s. Energy: 0.4 J at 240 W."""
    launch = 3e-6
    weak = gpu(energy_per_op=0.0)
    assert seconds(Kernel(macs=1e10, block_macs=1e6), weak) == pytest.approx(launch + 4e-4)
    assert seconds(Kernel(macs=1e10, block_macs=1e6, attention=True), weak) == pytest.approx(launch + 8e-4)
    assert seconds(Kernel(macs=1e10, block_macs=5e9), weak) == pytest.approx(launch + 2e-3)  # on one of ten processors
    assert seconds(Kernel(weights=1e8, values=8e7, kv=2e7), weak) == pytest.approx(launch + 5e-4)
    assert seconds(Kernel(macs=1e11, block_macs=1e6), gpu(energy_per_op=6e-12)) == pytest.approx(launch + 1.2 / 240)
    assert seconds(Kernel(macs=1e10, block_macs=1e6, launched=False), weak) == pytest.approx(4e-4)


def test_energy_is_that_of_operations_and_bytes() -> None:
    kernel = Kernel(macs=1e10, block_macs=1e6, weights=1e8, values=4e7, kv=1e7)
    assert bytes_moved(kernel, gpu(bytes_per_weight=0.5)) == pytest.approx(5e7 + 1e8)
    assert kernels_cost([kernel], gpu(bytes_per_weight=0.5)).energy == pytest.approx(
        {"gpu": 2e10 * 2e-12 + 1.5e8 * 30e-12}
    )


@pytest.mark.parametrize(
    ("changes", "picojoules"),
    [({}, 2.0), ({"technology": 14.0}, 4.0), ({"bytes_per_value": 1.0}, 1.0), ({"priced_at": 14.0}, 1.0)],
)
def test_energy_of_an_operation_follows_technology_and_width(changes: dict[str, float], picojoules: float) -> None:
    assert gpu(**changes).op_energy == pytest.approx(picojoules * 1e-12)


KERNELS = st.builds(
    Kernel,
    macs=st.floats(0, 1e14),
    block_macs=st.floats(0, 1e9),
    weights=st.floats(0, 1e10),
    values=st.floats(0, 1e10),
    kv=st.floats(0, 1e10),
    attention=st.booleans(),
)
BETTER = {
    **{"peak": 200e12, "bandwidth": 2e12, "efficiency": 0.6, "attention_efficiency": 0.3, "memory_efficiency": 0.9},
    **{"launch_time": 2e-6, "power": 400.0, "energy_per_op": 1e-12, "energy_per_byte": 20e-12},
}


@given(kernel=KERNELS, name=st.sampled_from(sorted(BETTER)))
def test_a_better_gpu_is_never_slower(kernel: Kernel, name: str) -> None:
    assert seconds(kernel, gpu(**{name: BETTER[name]})) <= seconds(kernel) * (1 + 1e-12)


@given(kernel=KERNELS, name=st.sampled_from(["macs", "block_macs", "weights", "values", "kv"]), more=st.floats(0, 1e9))
def test_more_work_never_takes_less(kernel: Kernel, name: str, more: float) -> None:
    larger = Kernel(**{**vars(kernel), name: getattr(kernel, name) + more})
    assert seconds(larger) >= seconds(kernel) * (1 - 1e-12)
    assert kernels_cost([larger], ROUND).total >= kernels_cost([kernel], ROUND).total * (1 - 1e-12)


@given(kernel=KERNELS)
def test_power_stays_within_the_board(kernel: Kernel) -> None:
    cost = kernels_cost([kernel], ROUND)
    assert cost.total <= (300 - 60) * cost.latency * (1 + 1e-12)


def on(hardware: Accelerator, model: str = "bert-base", **lengths: int) -> Run:
    return simulate(shapes(model, **lengths), hardware)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 500), batch=st.integers(1, 300), more=st.integers(1, 20))
@pytest.mark.slow
def test_time_and_energy_grow_with_tokens_and_batch(tokens: int, batch: int, more: int) -> None:
    run = on(A100, tokens=tokens, batch=batch)
    for other in (on(A100, tokens=min(512, tokens + more), batch=batch), on(A100, tokens=tokens, batch=batch + more)):
        assert other.latency >= run.latency * (1 - 1e-12)
        assert other.energy >= run.energy * (1 - 1e-12)


def test_time_per_sample_falls_with_the_batch_to_that_of_a_full_chip() -> None:
    each = [on(A100, tokens=128, batch=size).latency / size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256)]
    assert all(later < earlier for earlier, later in itertools.pairwise(each))
    work = shapes("bert-base", tokens=128)
    assert 2 * work.macs / (312e12 * 0.61) < each[-1] < 1.25 * 2 * work.macs / (312e12 * 0.61)


def test_power_follows_utilization() -> None:
    """Idle for launches, the memory's share while a token is decoded, near the board's power at large batches."""
    small, large = on(A100, tokens=8, batch=1), on(A100, tokens=128, batch=128)
    decode = simulate(shapes("llama-2-7b", phase="decode", context=100), A100)
    assert 88 < small.power < decode.power < large.power < 400
    assert decode.power < 0.5 * 400
    assert large.power > 0.7 * 400


def test_a_board_of_little_power_limits_its_clock() -> None:
    """A T4 has 65 Top/s, but 54.6 W for 2.07 pJ each: 26 Top/s."""
    work = shapes("bert-base", tokens=128, batch=128)
    limited, free = simulate(work, T4), simulate(work, replace(T4, "engine.power", 300.0))
    assert 0.9 * 70 < limited.power <= 70
    assert 2 * work.macs / limited.latency < 26.4e12
    assert limited.latency > 1.3 * free.latency


def test_fewer_bytes_are_faster_to_decode() -> None:
    work = shapes("llama-2-7b", phase="decode", context=100)
    times = [simulate(work, replace(A100, "engine.bytes_per_weight", size)).latency for size in (None, 1.0, 0.5, 0.25)]
    assert all(later < earlier for earlier, later in itertools.pairwise(times))


def test_fused_stacks_are_faster_and_take_less_energy() -> None:
    work = shapes("gpt2", tokens=1024, batch=8)
    runs = [simulate(work, replace(A100, "engine.fusion", kind)) for kind in ("full", "elementwise", "none")]
    assert runs[0].latency < runs[1].latency < runs[2].latency
    assert runs[0].energy < runs[1].energy < runs[2].energy


def test_the_efficiencies_of_the_kind_are_those_of_the_library() -> None:
    """So a GPU written with its data sheet alone, and one that starts from the A100, are the same."""
    known = load(Accelerator, "h100_sxm").projection
    assert isinstance(known, GpuEngine)
    sheet = ("peak", "processors", "bandwidth", "memory", "bytes_per_value", "power", "area", "technology")
    assert GpuEngine.model_validate({"kind": "gpu", **{name: getattr(known, name) for name in sheet}}) == known


FILE = """
[accelerator.engine]
kind = "gpu"
peak = "100 Top/s"
processors = 10
bandwidth = "1 TB/s"
memory = "80 GB"
bytes_per_value = 2
power = "300 W"
area = "800 mm^2"
technology = 7
"""


def test_all_roles_may_share_one_engine_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(FILE)
    found = load(Accelerator, str(file))
    assert found.projection == found.attention.key == found.attention.value
    assert found.attention.arrays == "shared"
    changed = replace(found, "engine.peak", 2e14)
    assert {engine.peak for engine in changed.gpus.values()} == {2e14}
    file.write_text(FILE.replace('peak = "100 Top/s"', ""))
    with pytest.raises(BadInput, match=r"own.toml: accelerator.engine.peak: is missing; add it$"):
        load(Accelerator, str(file))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("idle_share", 1.0, r"idle_share = 1.0: leaves no power for work; lower it, or set energy_per_op and"),
        ("memory", 0.0, r"memory = 0.0: must be > 0"),
        ("processors", 0, r"processors = 0: must be >= 1"),
        ("efficiency", 1.1, r"efficiency = 1.1: must be <= 1"),
        ("efficiency", 0.0, r"efficiency = 0.0: must be > 0"),
        ("fusion", "some", r"fusion = 'some': must be 'full', 'elementwise' or 'none'"),
        ("technology", -7.0, r"technology = -7.0: must be > 0"),
    ],
)
def test_a_gpu_that_cannot_be_is_one_line(field: str, value: object, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        replace(A100, f"engine.{field}", value)


@pytest.mark.parametrize("name", ["peak", "processors", "bandwidth", "memory", "power", "area", "technology"])
def test_a_missing_figure_is_an_error(name: str) -> None:
    rest = {key: value for key, value in FIGURES.items() if key != name}
    with pytest.raises(BadInput, match=f"{name}: is missing; add it"):
        GpuEngine(kind="gpu", **rest)  # type: ignore[arg-type]


def test_a_sweep_of_gpus_gives_the_numbers_of_single_runs() -> None:
    machines = [of.load(name) for name in ("a100_sxm_40gb", "h100_sxm_fp8", "t4")]
    works = [of.shapes("bert-base", tokens=size, batch=size % 7 + 1) for size in (16, 100, 384)]
    points = [(work, machine, of.LayerSerial()) for work in works for machine in machines]
    found = of.explore(points)
    for (work, machine, flow), latency, energy in zip(points, found.latency, found.energy, strict=True):
        run = of.simulate(work, machine, flow)
        assert (latency, energy) == (pytest.approx(run.latency), pytest.approx(run.energy))


@pytest.mark.parametrize("causal", [False, True])
def test_more_queries_never_take_less_where_a_second_thread_block_begins(causal: bool) -> None:
    """The block with the most work decides, and it takes as many queries as one that stands alone."""
    times = [on(A100, "gpt2" if causal else "bert-base", tokens=tokens).latency for tokens in (383, 384, 385, 400, 512)]
    assert times == sorted(times)
