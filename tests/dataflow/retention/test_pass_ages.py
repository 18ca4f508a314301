"""Ages of one pass follow from its jobs."""

from __future__ import annotations

import numpy as np
import pytest

import ohmformer as of
from ohmformer.hardware.ages import OperandAges


def spans(run: of.Run, layer: str, stage: str, sample: int = 0) -> list[tuple[float, float]]:
    """Starts and ends of the jobs of a stage, from the trace [s]."""
    events = [event for event in run.timeline.chrome_trace()["traceEvents"] if event["ph"] == "X"]
    mine = (e for e in events if (e["name"], e["args"]["layer"], e["args"]["sample"]) == (stage, layer, sample))
    return [(e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6) for e in mine]


def ages(run: of.Run, layer: int, role: str, sample: int = 0) -> OperandAges:
    return run.timeline.ages(sample).of(layer, role)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("flow", [of.LayerSerial(), of.SequenceBlocking(block=5), of.LayerOverlap(block=4)], ids=str)
@pytest.mark.slow
def test_an_encoder_by_hand(flow: of.Dataflow, batch: int) -> None:
    """Each query reads in its part of a job of Q K^T; a key is there when the job of its block ends."""
    run = of.simulate(of.shapes("bert-base", tokens=12, batch=batch), of.load("clipformer_tcad_2024"), flow)
    sample, size = batch - 1, flow.size_of_block(12)
    writes, reads = (spans(run, "layer 5", name, sample) for name in ("write", "key"))
    found = ages(run, 5, "attention.key", sample)
    for query, key in ((0, 0), (0, 11), (7, 3), (11, 0), (11, 11)):
        start, end = reads[query // size]
        count = min(size, 12 - query // size * size)
        read = start + (query % size + 1) / count * (end - start)
        assert found.age(query, key) == pytest.approx(read - writes[key // size][1], rel=1e-9)
    values, last = ages(run, 5, "attention.value", sample), spans(run, "layer 5", "value", sample)[-1][1]
    start, end = writes[0]
    assert values.age(11, 0) == pytest.approx(last - (start + (end - start) / size), rel=1e-9)
    assert found.by_distance()[1].min() >= 0
    assert values.by_distance()[1].min() >= 0


def test_a_causal_prefill_reads_no_later_keys() -> None:
    run = of.simulate(of.shapes("gpt2", tokens=20), of.load("nvm_ideal"), of.LayerOverlap(block=4))
    found = ages(run, 0, "attention.key")
    assert found.by_distance()[0].tolist() == list(range(20))
    assert min(found.at_distance(0)) > 0


def test_ages_grow_with_distance_and_never_pass_the_latency() -> None:
    run = of.simulate(of.shapes("gpt2", tokens=50), of.load("nvm_ideal"), of.LayerOverlap(block=1))
    for layer in (0, 11):
        _, mean, longest = ages(run, layer, "attention.key").by_distance()
        assert np.all(np.diff(mean) > 0)
        assert longest.max() < run.latency
    assert run.timeline.ages().longest < run.latency


def test_stored_queries_are_as_old_as_their_own_read() -> None:
    """X-Former's cells hold Q: its age does not depend on the key."""
    run = of.simulate(of.shapes("bert-base", tokens=12), of.load("xformer_tvlsi_2023"))
    found = ages(run, 3, "attention.key")
    ((_, written),) = spans(run, "layer 3", "write")
    ((start, end),) = spans(run, "layer 3", "key")
    assert found.age(0, 0) == pytest.approx(start + (end - start) / 12 - written, rel=1e-9)
    assert found.age(5, 0) == found.age(5, 11)
    assert {writes.most for writes in run.timeline.ages().writes} == {12}


def test_without_cells_there_are_no_ages() -> None:
    for name in ("h100_sxm", "puma_asplos_2019"):
        ages_of_none = of.simulate(of.shapes("bert-base", tokens=12), of.load(name)).timeline.ages()
        assert (ages_of_none.operands, ages_of_none.writes, ages_of_none.longest) == ((), (), 0)


def test_an_encoder_decoder_has_ages_of_its_source() -> None:
    run = of.simulate(of.shapes("t5-base", tokens=10, phase="prefill"), of.load("nvm_ideal"))
    across = [operand for operand in run.timeline.ages().operands if operand.across]
    assert len(across) == 24
    assert {len(operand.written) for operand in across} == {10}
    assert {len(operand.read) for operand in across} == {1}
    assert min(operand.longest for operand in across) > 0


def test_what_a_pass_does_not_know_is_refused() -> None:
    hardware = of.load("nvm_ideal")
    run = of.simulate(of.shapes("gpt2", phase="decode", context=9), hardware)
    with pytest.raises(of.BadInput, match=r"a decode with 9 cached tokens .* take of.serve"):
        run.timeline.ages()
    flow = of.SequenceBlocking(block=4, dependencies="published")
    early = of.simulate(of.shapes("bert-base", tokens=12), hardware, flow)
    with pytest.raises(of.BadInput, match=r"lets queries read before keys are written; take dataflow.dependencies"):
        early.timeline.ages()
    few = of.simulate(of.shapes("bert-base", tokens=12), of.replace(hardware, "attention.key.resident", 8))
    with pytest.raises(of.BadInput, match=r"attention.key.resident = 8: 12 tokens of .* take turns"):
        few.timeline.ages()
    with pytest.raises(of.BadInput, match="sample = 1: must be a whole number from 0 to 0"):
        of.simulate(of.shapes("bert-base", tokens=12), hardware).timeline.ages(1)
