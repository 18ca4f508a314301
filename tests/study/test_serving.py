"""Serving as a study: tables of dimensions and real models, sweeps, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ohmformer as of
from ohmformer.errors import BadInput
from ohmformer.study.cost import make_costs, runs_of
from ohmformer.study.results.costs import ServedResult
from ohmformer.study.serving import served_of, study_served
from tests.nn.hub import library
from tests.tasks import tiny

TABLE = {"source": "shapes:gpt2", "seq_len": 40, "generate": 12, "batch": 2}
BASE: dict[str, Any] = {"name": "served", "model": TABLE, "hardware": {"base": "nvm_ideal"}}


def one(**changes: Any) -> ServedResult:
    (point,) = study_served(make_costs({**BASE, **changes})).points
    return point.cost


def test_a_point_has_the_numbers_of_serve() -> None:
    found, served = one(), of.serve("gpt2", of.load("nvm_ideal"), prompt=40, generate=12, batch=2)
    assert (found.prompt, found.generate, found.batch) == (40, 12, 2)
    assert (found.ttft_s, found.tpot_s, found.energy_J) == (served.ttft, served.tpot, served.energy)
    assert (found.tpot_first_s, found.tpot_last_s) == (served.first_tpot, served.last_tpot)
    assert [part.name for part in found.parts] == ["prefill", "first step", "mean step", "last step", "all"]
    assert found.parts[-1].tokens == 24
    assert sum(found.energy_by.operation.values()) == pytest.approx(found.energy_J)
    assert found.steady is not None
    assert served.steady is not None
    assert found.steady.output_tokens_per_s == served.steady.output_tokens_per_s
    assert found.lifetime_s is None


def test_chunks_of_prompts_can_be_swept() -> None:
    points = study_served(make_costs({**BASE, "sweep": {"model.chunk": [8, 16]}})).points
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=40, generate=12, batch=2)
    for point, chunk in zip(points, (8, 16), strict=True):
        steady, expected = point.cost.steady, served.chunked_prefill(chunk)
        assert steady is not None
        assert (steady.chunk, steady.ttft_s, steady.tpot_s) == (chunk, expected.ttft, expected.tpot)
        assert (steady.step_s, steady.power_W) == (expected.step_latency, expected.power)
        assert point.cost.ttft_s == served.ttft  # of the batch that starts together
    alone = one().steady
    assert alone is not None
    assert alone.chunk is None
    assert alone.ttft_s == served.steady.ttft  # type: ignore[union-attr]


def test_sweeps_over_lengths_and_machines() -> None:
    sweep = {"model.generate": [1, 5], "hardware.base": ["nvm_ideal", "h100_sxm"]}
    points = study_served(make_costs({**BASE, "sweep": sweep})).points
    assert [point.set["model.generate"] for point in points] == [1, 1, 5, 5]
    assert [point.cost.tpot_s is None for point in points] == [True, True, False, False]


def test_lifetime_follows_the_rate_of_requests() -> None:
    hardware = {"base": "xformer_tvlsi_2023"}
    slow, fast = (one(hardware=hardware, cost={"rate": f"{rate} Hz"}) for rate in (1, 10))
    assert slow.lifetime_s == pytest.approx(10 * fast.lifetime_s)  # type: ignore[operator]


def test_dataflows_of_ones_own_have_no_steady_state() -> None:
    class Own(of.SequenceBlocking):
        def jobs(self, placement: of.Placement) -> Any:
            from ohmformer.dataflow.block_jobs import block_jobs

            return block_jobs(placement, of.SequenceBlocking(block=self.block))

    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=40, generate=4, dataflow=Own(block=16))
    same = of.serve("gpt2", of.load("nvm_ideal"), prompt=40, generate=4, dataflow=of.SequenceBlocking(block=16))
    assert served.steady is None
    assert served.latency == pytest.approx(same.latency, rel=1e-9)


def test_real_models_are_traced(tmp_path: Path) -> None:
    library("transformers")
    model = {"source": f"hf:{tiny.llama(tmp_path / 'llama')}", "weights": "random", "seq_len": 6, "generate": 9}
    (point,) = make_costs({**BASE, "model": {**model, "batch": 2}}).points
    served = served_of(point.settings)
    assert (served.passes.prompt, served.passes.generate, served.passes.batch) == (6, 9, 2)
    assert served.steady is not None
    for step in (0, 4, 7):
        decode = {**model, "seq_len": None, "generate": None, "batch": 2, "phase": "decode", "context": 6 + step}
        (at,) = make_costs({**BASE, "model": {k: v for k, v in decode.items() if v is not None}}).points
        assert served.step_latency[step] == pytest.approx(runs_of(at.settings)[0].latency, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generate": None}, "study: model.generate: is missing; say with --generate"),
        ({"seq_len": None}, "study: model.seq_len: is missing; say with --prompt"),
        (
            {"phase": "decode"},
            "study: model.phase = 'decode': a request has a prefill and then its steps; leave it out",
        ),
        ({"context": 4}, "study: model.context = 4: a request has a prefill"),
        ({"steps": 4}, "study: model.steps = 4: a request has a prefill"),
        (
            {"source": "bundled:fashion-vit", "seq_len": None},
            "study: model.source = 'bundled:fashion-vit': the model has ",
        ),
        ({"source": "shapes:bert-base"}, "study: model 'BERT-base': is an encoder, which generates no tokens"),
        ({"seq_len": 1024}, "prompt = 1024, generate = 12: takes 1035 positions, which end at 1024"),
        ({"generate": 0}, "study: model.generate = 0: must be >= 1"),
        ({"chunk": 0}, "study: model.chunk = 0: must be >= 1"),
        ({"chunk": 1.5}, "study: model.chunk = 1.5:"),
        ({"chunk": 8, "generate": 1}, "study: chunked_prefill: generate = 1: there is no decoding step to join"),
    ],
)
def test_bad_requests_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    model = {name: value for name, value in {**TABLE, **change}.items() if value is not None}
    with pytest.raises(BadInput) as caught:
        study_served(make_costs({**BASE, "model": model}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
