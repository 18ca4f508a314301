"""What conditioning K and V takes: operations, energy and time by hand, and not one array more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ohmformer as of
from ohmformer.array.event_counter import Counts
from ohmformer.cost.kv_conditioning import basis_operations, product_operations, token_operations
from ohmformer.cost.placement import place
from ohmformer.dataflow.explore import DesignPoint, explore
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import Conditioning, KVClip
from ohmformer.workload.shapes import Transformer, shapes
from ohmformer.workload.spec import AttentionRole, DynamicMatMul


def accelerator(name: str) -> Accelerator:
    found = load(name)
    assert isinstance(found, Accelerator)
    return found


CLIPFORMER, IDEAL = accelerator("clipformer_tcad_2024"), accelerator("nvm_ideal")
BASES = ("own", "rescaled", "hadamard", "balanced")
AUTO = Conditioning(mean=True, basis="balanced", scale="token", unbiased=True)
TABLE = Transformer(title="t", kind="encoder", layers=2, width=64, heads=4, hidden=64, tokens=24)
CAUSAL = Transformer(title="c", kind="decoder", layers=2, width=64, heads=4, kv_heads=2, hidden=64, tokens=24)


def product(role: AttentionRole, *, d: int = 8, causal: bool = False, written: int = 5) -> DynamicMatMul:
    """2 samples, 2 heads of K and V for 4 of queries, 3 queries, 5 tokens: 20 vectors are written, 24 sent or made."""
    sizes = (d, 5) if role == "attention.key" else (5, d)
    return DynamicMatMul("x", "x", 0, role, 2, 4, 2, 3, *sizes, written, causal=causal)


@pytest.mark.parametrize(
    ("spec", "tokens", "fixed", "key", "value"),
    [
        ({}, 0, 0, 0, 0),
        ({"mean": True}, 20 * (8 + 8), 20 * 8, 0, 24 * 8),
        ({"basis": "rescaled"}, 20 * 8, 20 * 8, 24 * 8, 24 * 8),
        ({"basis": "hadamard"}, 20 * 24, 20 * 24, 24 * 24, 24 * 24),
        ({"basis": "balanced"}, 20 * (64 + 56), 20 * (64 + 56), 24 * (64 + 56), 24 * (64 + 56)),
        ({"scale": "token"}, 20 * 8, 20 * 8, 24 * 5, 24 * 5),
        ({"scale": "head"}, 20 * 8, 0, 0, 0),
        ({"scale": "tensor"}, 20 * 8, 0, 0, 0),
        ({"unbiased": True}, 20 * 8, 20 * 8, 0, 0),
        ({"range": 0.5, "radix": 1, "redundancy": 2}, 0, 0, 0, 0),
    ],
)
def test_operations_by_hand(spec: dict[str, Any], tokens: int, fixed: int, key: int, value: int) -> None:
    """`fixed`: in causal attention, where calibration knows means and ranges that several tokens share."""
    asked = Conditioning(**spec)
    roles: tuple[tuple[AttentionRole, int], ...] = (("attention.key", key), ("attention.value", value))
    for role, of_product in roles:
        assert token_operations(product(role), asked) == tokens
        assert token_operations(product(role, causal=True), asked) == fixed
        assert token_operations(product(role, causal=True, written=1), asked) * 5 == fixed, "the cache stays as it is"
        assert product_operations(product(role), asked) == of_product
        scores = 8 * (3 + 4 + 5) if spec == {"scale": "token"} else of_product  # the scores that a causal query has
        assert product_operations(product(role, causal=True), asked) == scores


def test_a_scale_by_column_is_one_by_token_for_k_and_by_feature_for_v() -> None:
    column, token = Conditioning(scale="column"), Conditioning(scale="token")
    key, value, later = product("attention.key"), product("attention.value"), product("attention.value", causal=True)
    assert token_operations(key, column) == token_operations(key, token)
    assert product_operations(key, column) == product_operations(key, token)
    assert (token_operations(value, column), product_operations(value, column)) == (20 * 8, 24 * 8)
    assert (token_operations(later, column), product_operations(later, column)) == (0, 24 * 8)


def test_heads_of_other_sizes_take_a_cosine_transform_of_their_odd_factor() -> None:
    spec = Conditioning(basis="hadamard")
    # 6 = 2 x 3: one step of 6 additions, then two products with a [3, 3] matrix: 9 multiplications, 6 additions each
    assert basis_operations(spec, 6) == 6 + 2 * (9 + 6)
    assert token_operations(product("attention.key", d=6), spec) == 20 * 36


SPECS = st.builds(
    Conditioning,
    mean=st.booleans(),
    basis=st.sampled_from(BASES),
    scale=st.sampled_from([None, "tensor", "head", "column", "token"]),
    unbiased=st.booleans(),
)


@given(SPECS, st.sampled_from(["attention.key", "attention.value"]), st.booleans(), st.integers(1, 40))
def test_parts_add_up(spec: Conditioning, role: AttentionRole, causal: bool, d: int) -> None:
    op = product(role, d=d, causal=causal)
    changed = {name: getattr(spec, name) for name in ("mean", "basis", "scale", "unbiased")}
    parts = [Conditioning(**{name: value}) for name, value in changed.items()]
    assert token_operations(op, spec) == sum(token_operations(op, part) for part in parts)
    assert product_operations(op, spec) == sum(product_operations(op, part) for part in parts)


@pytest.mark.parametrize("table", [TABLE, CAUSAL])
@pytest.mark.parametrize("basis", BASES)
def test_arrays_cells_writes_and_conversions_stay_as_they_are(table: Transformer, basis: Any) -> None:
    spec = Conditioning(mean=True, basis=basis, scale="token", range=0.7, radix=1, unbiased=True)
    work = shapes(table)
    plain, made = place(work, CLIPFORMER), place(work, CLIPFORMER, kv=spec)
    assert (made.counts, made.arrays, made.tiles, made.area) == (plain.counts, plain.arrays, plain.tiles, plain.area)
    assert made.wear == plain.wear
    own = dict.fromkeys(("layers.0.attention.scores", "layers.1.attention.mix"), spec)
    some = place(work, CLIPFORMER, kv=own)
    assert (some.counts, some.arrays, some.tiles, some.area) == (plain.counts, plain.arrays, plain.tiles, plain.area)
    extra = {name: made.energy[name] - plain.energy.get(name, 0.0) for name in made.energy}
    assert {name for name, value in extra.items() if value} == {"conditioning", "register", "buffer", "bus"}


def test_the_energy_of_conditioning_by_hand() -> None:
    """DeiT-S: 12 layers, 6 heads of 64, 197 tokens; 2.185 pJ an operation."""
    work, tokens = shapes("deit-small"), 12 * 6 * 197
    each = {
        "mean": 2 * 2 * 64 + 64,  # sum and difference for K and V, the mean of V added to results
        "hadamard": 4 * 64 * 6,
        "balanced": 4 * 64 * 127,
        "token": 2 * 64 + 2 * 197,  # the largest of 64 for K and V; 197 scores and 197 entries of P a query
        "unbiased": 2 * 64,
    }
    plain = simulate(work, CLIPFORMER)
    for basis in ("hadamard", "balanced"):
        spec = Conditioning(mean=True, basis=basis, scale="token", unbiased=True)
        run = simulate(work, CLIPFORMER, kv=spec)
        by_hand = tokens * (each["mean"] + each[basis] + each["token"] + each["unbiased"]) * 2.185e-12
        assert run.energy_by("component")["conditioning"] == pytest.approx(by_hand)
        # scales of K and V: one byte for each token and head is stored, and read again
        moved = 2 * 2 * tokens * (0.27 + 0.5375 + 0.09375) * 1e-12
        extra = sum(run.placement.energy.values()) - sum(plain.placement.energy.values())
        assert extra == pytest.approx(by_hand + moved)
        operations = run.energy_by("operation")
        assert operations["conditioning"] == pytest.approx(by_hand + moved / 2), "scales are stored there"
        assert sum(operations.values()) == pytest.approx(run.energy)
        assert sum(run.energy_by("engine").values()) == pytest.approx(run.energy)


def test_the_time_of_conditioning_by_hand() -> None:
    """A layer of DeiT-S fills its tiles with so many lanes; what is done to tokens comes before they are written."""
    work = shapes("deit-small")
    plain, run = simulate(work, CLIPFORMER), simulate(work, CLIPFORMER, kv=Conditioning(mean=True, basis="balanced"))
    arrays = sum(-(-i // 64) * -(-o // 64) * 4 * 2 for i, o in ((384, 1152), (384, 384), (384, 1536), (1536, 384)))
    lanes = -(-arrays // 64) * 8 * 4
    before = 6 * 197 * 2 * (2 * 64 + 64 * 127) / (lanes * 1e9)
    stages = {stage.name: stage for stage in run.placement.layers[1].stages}
    assert stages["conditioning"].time(197) == pytest.approx(before)
    assert run.timeline.critical_stages()["conditioning"] == pytest.approx(12 * before)
    others = [
        run.timeline.critical_stages()[name] - plain.timeline.critical_stages()[name] for name in ("key", "value")
    ]
    assert run.latency - plain.latency == pytest.approx(12 * before + sum(others), rel=1e-6)
    assert all(more >= 0 for more in others), "queries and results are turned while products run"


def test_nothing_is_written_before_the_mean_of_all_tokens_is_known() -> None:
    work, blocks = shapes(TABLE), SequenceBlocking(block=8)
    run = simulate(work, CLIPFORMER, blocks, kv=AUTO)
    layer = run.placement.layers[0]
    jobs = [(job.stage.name, start, end) for job, start, end in zip(run.timeline.jobs, *_times(run), strict=True)]
    first = [entry for entry, job in zip(jobs, run.timeline.jobs, strict=True) if job.layer == 0]
    (before,) = [start for name, start, _ in first if name == "conditioning"]
    assert before >= max(end for name, _, end in first if name == "qkv")
    assert len([name for name, _, _ in first if name == "write"]) == 1
    assert len([name for name, _, _ in first if name == "key"]) == 3
    assert layer.stages[layer.gather or 0].name == "conditioning"
    for changes in ({"mean": False}, {"mean": True}):
        causal = simulate(shapes(CAUSAL), CLIPFORMER, blocks, kv=AUTO.model_copy(update=changes))
        assert causal.placement.layers[0].gather is None, "calibration knows the mean"


def _times(run: of.Run) -> tuple[list[float], list[float]]:
    return run.timeline.schedule.start, run.timeline.schedule.end


def test_all_points_at_once_are_what_each_takes_alone() -> None:
    works = [
        shapes(TABLE),
        shapes(TABLE, batch=2),
        shapes(CAUSAL, phase="decode", context=9),
        shapes("t5-base", tokens=9),
    ]
    flows = [LayerSerial(), SequenceBlocking(block=7), SequenceBlocking(block=7, dependencies="published")]
    points = [DesignPoint(work, IDEAL, flow) for work in works for flow in flows]
    found = explore(points, kv=AUTO)
    runs = [simulate(*point, kv=AUTO) for point in points]
    assert found.latency == pytest.approx([run.latency for run in runs], rel=1e-9)
    assert found.energy == pytest.approx([run.energy for run in runs], rel=1e-9)


def test_operands_have_their_own() -> None:
    work = shapes(TABLE)
    key, value = "layers.0.attention.scores", "layers.1.attention.mix"
    hadamard = Conditioning(basis="hadamard")
    energy = [place(work, CLIPFORMER, kv=kv).energy.get("conditioning", 0.0) for kv in _each(key, value, hadamard)]
    both, first, second, all_ = energy
    assert both == pytest.approx(first + second)
    assert all_ == pytest.approx(4 * first), "K and V of two layers take the same"
    with pytest.raises(
        BadInput, match=r"kv\['layers.0.attention.score'\]: names no operand; did you mean 'layers.0.attention.scores'"
    ):
        place(work, CLIPFORMER, kv={"layers.0.attention.score": hadamard})
    for kv in ("auto", {key: "hadamard"}):
        with pytest.raises(BadInput, match=r"is not a conditioning; take Conditioning\("):
            place(work, CLIPFORMER, kv=kv)  # type: ignore[arg-type]


def _each(key: str, value: str, spec: Conditioning) -> list[Any]:
    return [{key: spec, value: spec}, {key: spec}, {value: spec}, spec]


def test_only_k_and_v_in_memristive_cells_are_conditioned() -> None:
    for name in ("xformer_tvlsi_2023", "puma_asplos_2019", "h100_sxm"):
        hardware, work = accelerator(name), shapes(TABLE)
        assert place(work, hardware, kv=AUTO).energy == place(work, hardware).energy
    work, written = shapes(TABLE), CLIPFORMER
    left = {"*.scores": Rule(write="left"), "*.mix": Rule(clip=KVClip(alpha=0.0, beta=0.5))}
    ruled = place(work, written, rules=left, kv=AUTO)
    assert ruled.energy == place(work, written, rules=left).energy, "Q is written, and V has a clip of its own"


def test_a_clip_frees_slices_of_codes_that_count_otherwise() -> None:
    """With base 1 four 2-bit cells spell 12 codes; a clip that leaves 3 of them needs one slice instead of three."""
    clip = KVClip(alpha=0.0, beta=0.25)
    ratio = CLIPFORMER.attention.array.cell.on_off_ratio
    top = round(12 * (0.25 * ratio - 1) / (ratio - 1))
    made = place(shapes(TABLE), CLIPFORMER, clip=clip, kv=Conditioning(radix=1))
    plain = place(shapes(TABLE), CLIPFORMER)
    assert made.arrays["attention.key"] * 4 == plain.arrays["attention.key"] * -(-top // 3)


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("clipformer_tcad_2024_adc8", None),
        ("clipformer_tcad_2024_adc8", KVClip(alpha=0.0, beta=0.25)),
        ("nvm_ideal", None),
    ],
)
def test_copies_take_so_many_times_all_that_k_and_v_take(name: str, clip: KVClip | None) -> None:
    """Pairs and reference columns; energy of the arrays' own components, since lanes and memory see no copies."""
    hardware, work = accelerator(name), shapes(TABLE)
    one, three = (place(work, hardware, clip=clip, kv=kv) for kv in (None, Conditioning(redundancy=3)))
    for role in ("attention.key", "attention.value"):
        assert three.arrays[role] == 3 * one.arrays[role] > 0
    assert three.arrays["projection"] == one.arrays["projection"]
    assert three.counts.cell_writes == 3 * one.counts.cell_writes
    assert three.energy["write"] == pytest.approx(3 * one.energy["write"])
    attention = [sum((s.counts for s in p.stages() if s.engine == "attention"), Counts()) for p in (one, three)]
    assert attention[1] == attention[0].times(3)
    assert "conditioning" not in three.energy
    assert three.area >= one.area
    # The crossbar itself may have them; then the weights, of another engine, still have none.
    own = place(work, of.replace(hardware, "attention.array.redundancy", 3), clip=clip)
    assert (own.counts, own.arrays) == (three.counts, three.arrays)
    assert own.energy == pytest.approx(three.energy)


def test_copies_of_one_operand_leave_the_kind_of_array_alone() -> None:
    """Redundant keys and plain values stand in the same tiles; shared arrays are those of the layer that needs most."""
    names = [op.name for op in shapes(TABLE).dynamic]
    shared = of.replace(CLIPFORMER, "attention.arrays", "shared")
    one, two = place(shapes(TABLE), shared), place(shapes(TABLE), shared, kv={names[2]: Conditioning(redundancy=2)})
    assert two.arrays["attention.key"] == 2 * one.arrays["attention.key"]
    assert two.arrays["attention.value"] == one.arrays["attention.value"]
    both = place(shapes(TABLE), shared, kv={names[0]: Conditioning(redundancy=2), names[2]: Conditioning(redundancy=2)})
    assert (both.arrays, both.tiles) == (two.arrays, two.tiles)


def test_what_memory_keeps() -> None:
    """24 tokens, 4 heads of 16, 2 layers; one byte a value."""
    run = simulate(shapes(TABLE), CLIPFORMER, kv=Conditioning(scale="token"))
    assert run.timeline.peak_buffer()["conditioning"] == 2 * 2 * 4 * 24
    run = simulate(shapes(TABLE), CLIPFORMER, kv=Conditioning(mean=True, basis="balanced"))
    assert run.timeline.peak_buffer()["conditioning"] == 2 * 4 * (2 * 2 * 16 * 16 + 16), "matrices, and the mean of V"
    decode = shapes(CAUSAL, phase="decode", context=9, batch=3)
    run = simulate(decode, CLIPFORMER, kv=Conditioning(mean=True, scale="token"))
    assert run.timeline.peak_buffer()["conditioning"] == 2 * 2 * 2 * (16 + 3 * 10), "fixed means; scales of 3 caches"
    shared = of.replace(CLIPFORMER, "attention.arrays", "shared")
    run = simulate(shapes(TABLE), shared, kv=Conditioning(scale="token"))
    assert run.timeline.peak_buffer()["conditioning"] == 2 * 4 * 24, "of the layer whose tokens are in the cells"
    assert "conditioning" not in simulate(shapes(TABLE), CLIPFORMER).timeline.peak_buffer()


def test_arrays_that_cannot_be_used_so_are_refused() -> None:
    with pytest.raises(BadInput, match=r"kv.radix = 1: an 'offset' array holds"):
        place(shapes(TABLE), IDEAL, kv=Conditioning(radix=1))
