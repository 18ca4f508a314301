"""Ages over a request: prefill and decoding steps on one time axis, as the event engine has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ohmformer as of


def ends(served: of.Served, layer: str, stage: str, sample: int) -> dict[str, list[float]]:
    """Pass -> ends of the jobs of a stage, from the trace [s]."""
    found: dict[str, list[float]] = {}
    for event in served.chrome_trace()["traceEvents"]:
        args: dict[str, Any] = event["args"]
        if event["ph"] == "X" and (event["name"], args["layer"], args["sample"]) == (stage, layer, sample):
            found.setdefault(args["pass"], []).append((event["ts"] + event["dur"]) / 1e6)
    return found


FLOWS = [of.LayerSerial(), of.LayerSerial(batching="serial"), of.LayerOverlap(block=4), of.SequenceBlocking(block=3)]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_cells_of_a_layers_own_keep_their_tokens(flow: of.Dataflow, batch: int) -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=6, batch=batch, dataflow=flow)
    request = batch - 1
    found = served.ages(request).of(7, "attention.key")
    writes, reads = (ends(served, "layer 7", name, request) for name in ("write", "key"))
    assert (len(found.written), len(found.read)) == (15, 15)
    for step in range(5):
        last = reads[f"step {step}"][0]
        assert found.age(10 + step, 0) == pytest.approx(last - writes["prefill"][0], rel=1e-9)
        for other in range(step + 1):
            expected = last - writes[f"step {other}"][0]
            assert found.age(10 + step, 10 + other) == pytest.approx(expected, rel=1e-9)
    assert np.all(np.diff(found.by_distance()[1]) > 0)
    assert found.longest == pytest.approx(reads["step 4"][0] - writes["prefill"][0], rel=1e-9)


def test_shared_cells_are_written_anew_at_every_step() -> None:
    hardware = of.replace(of.load("nvm_ideal"), "attention.arrays", "shared")
    served = of.serve("gpt2", hardware, prompt=10, generate=6)
    found = served.ages().of(7, "attention.value")
    writes, reads = (ends(served, "layer 7", name, 0) for name in ("write", "value"))
    for step in range(5):
        expected = reads[f"step {step}"][0] - writes[f"step {step}"][0]
        for key in (0, 9, 10 + step):
            assert found.age(10 + step, key) == pytest.approx(expected, rel=1e-9)
    assert found.longest < served.ttft
    assert {entry.most for entry in served.ages().writes} == {12 * 6}


def test_an_encoder_decoder_reads_its_source_at_every_step() -> None:
    served = of.serve("t5-base", of.load("nvm_ideal"), prompt=10, generate=4)
    ages = served.ages()
    across = [operand for operand in ages.operands if operand.across]
    assert {(len(operand.written), len(operand.read)) for operand in across} == {(10, 4)}
    own = ages.of(15, "attention.key")
    assert (len(own.written), len(own.read)) == (4, 4)
    encoder = ages.of(0, "attention.key")
    assert (len(encoder.written), len(encoder.read), encoder.causal) == (10, 10, False)


def test_own_jobs_give_the_same_ages() -> None:
    class Own(of.LayerSerial):
        def jobs(self, placement: of.Placement) -> Any:
            from ohmformer.dataflow.block_jobs import block_jobs

            return block_jobs(placement, of.LayerSerial())

    one, other = (
        of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=6, batch=2, dataflow=flow).ages(1)
        for flow in (of.LayerSerial(), Own())
    )
    for mine, same in zip(one.operands, other.operands, strict=True):
        assert mine.read == pytest.approx(same.read, rel=1e-9)
        assert mine.written == pytest.approx(same.written, rel=1e-9)


def test_writes_per_hour() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=6)
    (key, value) = served.ages().writes
    assert (key.most, value.most) == (1, 1)
    assert key.most_per_hour == pytest.approx(3600 / served.latency)


def test_one_token_has_the_ages_of_the_prefill() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=10, generate=1)
    run = of.simulate(of.shapes("gpt2", tokens=10), of.load("nvm_ideal"))
    assert served.ages().longest == pytest.approx(run.timeline.ages().longest, rel=1e-12)
    with pytest.raises(of.BadInput, match="request = 1: must be a whole number from 0 to 0"):
        served.ages(1)


def test_the_page_on_cost_gives_the_age_that_its_example_computes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cost.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(served = of\.serve.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"^keys\.age\(638, 0\) +# ([\d.]+) ms", code, re.MULTILINE)
    names: dict[str, Any] = {"of": of}
    exec(code, names)
    assert f"{names['keys'].age(638, 0) * 1e3:.2f}" == shown
    assert len(names["longest"]) == 639
