"""Ages of K and V in a study come from the timeline of its cost half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half as evaluate_point
from ohmformer.study.read_study import make_study
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Settings, Study
from ohmformer.study.timing.ages import ages_of
from ohmformer.tasks.task import Task
from tests.nn.models import Decoder
from tests.study.small import document
from tests.tasks import tiny

TAU = "hardware.attention.array.cell.drift.tau"


def study(*sets: str, age: Any = "timeline", sweep: dict[str, Any] | None = None, **changes: Any) -> Study[Settings]:
    leaking = {"base": "clipformer_tcad_2024", "attention.array.cell.drift": {"kind": "exponential", "tau": "2 us"}}
    found = document(simulation={"batch": 5, "age": age}, **{"hardware": leaking, **changes})
    return make_study({**found, "sweep": sweep} if sweep else found, sets)


def only(*sets: str, **changes: Any) -> Settings:
    (point,) = study(*sets, **changes).points
    return point.settings


def decoder() -> torch.nn.Module:
    return Decoder().eval()


def texts() -> Task:
    """Texts of seven tokens, and calibration texts of five."""
    words = torch.randint(0, 20, (12, 7), generator=torch.Generator().manual_seed(1))
    words[:, -1] = 3
    with torch.inference_mode():
        labels: Tensor = decoder()(words)[:, -1].argmax(dim=-1)
    return Task("texts", words, labels, words[:4, :5].clone(), labels[:4].clone())


def test_accuracy_falls_as_charge_leaks_faster() -> None:
    sweep = {TAU: ["1 s", "3 us", "1 us", "0.4 us"]}
    points = study(sweep=sweep, trials={"chips": 4}).points
    means = [evaluate_point(point.settings).accuracy.mean for point in points]
    plain = evaluate_point(only(age="0 s", trials={"chips": 4})).accuracy.mean
    assert means[0] == plain
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0]


def test_ages_are_those_of_the_cost_half_of_the_same_point() -> None:
    ages = ages_of(only())
    assert ages is not None
    assert {operand.name for operand in ages.operands} == {"blocks.0.attn.K", "blocks.0.attn.V"}
    assert all(len(operand.written) == 5 for operand in ages.operands)
    assert ages.encoder == "mean"
    longest = ages_of(only(age="timeline_longest"))
    assert longest is not None
    assert longest.encoder == "longest"
    assert ages_of(only(age="1 us")) is None


def test_another_dataflow_or_clock_gives_another_result() -> None:
    keys = study_keys(study()) + study_keys(study(age="timeline_longest")) + study_keys(study(age="1 us"))
    keys += study_keys(study("hardware.attention.array.cell.write_time=30 ns"))
    keys += study_keys(study(dataflow={"kind": "sequence_blocking", "block": 1}))
    assert len(set(keys)) == 5
    same = study_keys(study(cost={"rate": "10 Hz"})) + study_keys(study(cost={"rate": "20 Hz"}))
    assert set(same) == {keys[0]}  # a rate of passes changes no times within a pass


def test_ages_of_equal_cost_points_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmformer.study.timing import ages

    ages._timeline_ages.cache_clear()
    for rate in ("10 Hz", "20 Hz", "30 Hz"):
        ages_of(only(cost={"rate": rate}))
    assert ages._timeline_ages.cache_info().misses == 1


def test_one_age_for_all_tokens_equals_that_of_the_arrays() -> None:
    path = "hardware.attention.array.age=1 us"
    assert evaluate_point(only(age="1 us")).accuracy == evaluate_point(only(path, age=None)).accuracy


def test_a_decoder_takes_the_longest_texts_of_its_task() -> None:
    ages = ages_of(only(model={"source": f"python:{__name__}:decoder"}, task={"source": f"python:{__name__}:texts"}))
    assert ages is not None
    assert {len(operand.read) for operand in ages.operands} == {7}
    assert all(operand.causal for operand in ages.operands)


def running_text() -> Task:
    words = torch.randint(0, 20, (8, 7), generator=torch.Generator().manual_seed(1))
    return Task("running text", words, words.clone(), words[:4].clone(), words[:4].clone(), metric="perplexity")


def test_generated_tokens_take_the_times_of_a_request(tmp_path: Path) -> None:
    """Four tokens of a prompt, and four generated ones, the last of which is never written."""
    parts: dict[str, Any] = {
        "model": {"source": f"hf:{tiny.llama(tmp_path / 'llama')}", "weights": "random"},
        "task": {"source": f"python:{__name__}:running_text"},
    }
    prefill = ages_of(only(**parts))
    request = ages_of(only("model.seq_len=4", "model.generate=4", **parts))
    assert prefill is not None
    assert request is not None
    assert {len(operand.read) for operand in (*prefill.operands, *request.operands)} == {7}
    assert request.longest > prefill.longest


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ("model.seq_len=4", "model.generate=3"),
            r"model\.generate = 3: .* are 6 tokens, .* have up to 7; raise it to 4$",
        ),
        (("model.seq_len=5",), r"model\.seq_len = 5: texts of the task have up to 7 tokens; raise it to 7, or leave"),
    ],
)
def test_a_timeline_shorter_than_the_texts_is_refused_before_anything_runs(
    sets: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    model = {"source": f"hf:{tiny.llama(tmp_path / 'llama')}", "weights": "random"}
    settings = only(*sets, model=model, task={"source": f"python:{__name__}:running_text"})
    with pytest.raises(BadInput, match=rf"^simulation\.age = 'timeline': {message}"):
        ages_of(settings)


def padded_texts() -> Task:
    """Texts of seven tokens of which the last two are padding."""
    plain = texts()
    inputs, calibration = (
        {"input_ids": words, "attention_mask": (torch.arange(words.shape[1]) < 5).long().expand_as(words)}
        for words in (plain.inputs, plain.calibration)
    )
    return Task("padded texts", inputs, plain.labels, calibration, plain.calibration_labels)


def test_padding_needs_no_times() -> None:
    parts = {"model": {"source": f"python:{__name__}:decoder"}, "task": {"source": f"python:{__name__}:padded_texts"}}
    assert ages_of(only("model.seq_len=5", **parts)) is not None
    with pytest.raises(BadInput, match="up to 5 tokens; raise it to 5"):
        ages_of(only("model.seq_len=4", **parts))


def test_a_stopped_study_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    sweep = {TAU: ["1 us", "0.3 us"]}
    whole = run_study(study(sweep=sweep), tmp_path / "whole", progress=False)
    calls = 0

    def stopped(settings: Settings) -> PointResult:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("stopped")
        return evaluate_point(settings)

    with pytest.raises(BadInput, match="stopped"):
        run_study(study(sweep=sweep), tmp_path / "parts", progress=False, evaluate=stopped)
    again = run_study(study(sweep=sweep), tmp_path / "parts", progress=False)
    assert [r.accuracy for r in again] == [r.accuracy for r in whole]


REFUSED = {
    "no price": (
        (),
        {"hardware": {"base": "generic_amplitude"}},
        r"simulation\.age = 'timeline': hardware\.chip: is missing",
    ),
    "age of the arrays": (("hardware.attention.array.age=1 us",), {}, "age = 1 us for all tokens"),
    "decoding alone": (("model.phase=decode", "model.context=4"), {}, "simulation.age = 'timeline'"),
    "two ages": (("hardware.attention.array.age=1 us",), {"age": "2 us"}, "leave out one of them"),
}


@pytest.mark.parametrize(("sets", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_times_is_refused_in_one_line(
    sets: tuple[str, ...], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message) as error:
        run_study(study(*sets, **changes), tmp_path, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("age", "message"),
    [
        ("timelin", "did you mean 'timeline'?"),
        ("Timeline_Longest", "did you mean 'timeline_longest'?"),
        ("1 m", "write it in s"),
        (5, "write '5 s'"),
        ("-1 s", "must be >= 0; raise it"),
        (True, "is no time; write one with its unit"),
        (["1 s"], "is no time; write one with its unit"),
        (float("nan"), "must be finite"),
        ("nan s", "is not a quantity"),
    ],
)
def test_a_wrong_age_is_refused_with_its_field_and_a_remedy(age: object, message: str) -> None:
    with pytest.raises(BadInput, match=r"simulation\.age") as error:
        study(age=age)
    assert message in str(error.value)
    assert "Input should" not in str(error.value)


def test_ages_survive_as_plain_values() -> None:
    from ohmformer.hardware.ages import Ages

    ages = ages_of(only())
    assert ages is not None
    again = Ages.read(ages.plain())
    assert again.plain() == ages.plain()
    assert np.array_equal(again.operands[0].rewritten, ages.operands[0].rewritten)
    with pytest.raises(BadInput, match=r"Ages\.plain"):
        Ages.read({"operands": [{}]})
