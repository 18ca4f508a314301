"""Perplexity: windows, strides, and a KV cache that fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model
from ohmformer.models.sources import bundled
from ohmformer.registry import _kinds
from ohmformer.tasks.head_choice import head_for
from ohmformer.tasks.load import load_task
from ohmformer.tasks.metric_kinds import Metric
from ohmformer.tasks.reading import IGNORED
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.spec import TaskChoice
from tests.tasks import tiny

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return load_model(f"hf:{tiny.llama(tmp_path_factory.mktemp('llama'))}", head="causal-lm")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"text:{tiny.prose(tmp_path / 'prose.txt')}"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's library folder with one text, `bundled:my-prose`."""
    (tmp_path / "library" / "bundled").mkdir(parents=True)
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path / "library"))
    return tiny.prose(tmp_path / "library" / "bundled" / "my_prose.txt")


def test_a_bundled_text_is_read_like_a_file(model: nn.Module, library: Path) -> None:
    options = {"model": model, "window": 16, "calibration": 2, "prefill": 8, "step": 2}
    bundled, file = (load_task(source, **options) for source in ("bundled:my-prose", f"text:{library}"))
    assert torch.equal(bundled.inputs["input_ids"], file.inputs["input_ids"])
    assert bundled.metric == "perplexity"
    assert bundled.reading == file.reading
    assert head_for(TaskChoice(source="bundled:my-prose")) == "causal-lm"
    assert head_for(TaskChoice(source="bundled:fashion-mnist")) == "auto"
    with pytest.raises(BadInput, match=r"task\.pooling = 'cls': does not apply to text: sources"):
        load_task("bundled:my-prose", model=model, pooling="cls")


def test_the_text_that_ships_is_long_enough_and_says_its_license() -> None:
    file = bundled("task")["bundled:northanger-abbey"]
    words = file.read_text(encoding="utf-8").split()
    assert len(words) == json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["words"] > 5000
    assert "public domain" in file.with_name("LICENSE.northanger-abbey").read_text(encoding="utf-8")


@pytest.mark.parametrize("stride", [16, 10, 5])
def test_every_token_is_scored_once_at_most(model: nn.Module, source: str, stride: int) -> None:
    task = load_task(source, model=model, window=16, stride=stride, calibration=2)
    scored = int((task.labels != IGNORED).sum())
    tokens = 260 - 32
    assert scored == (tokens - 1 if stride < 16 else tokens - len(task))
    assert (task.labels[:, 0] == IGNORED).all()
    assert int(task.inputs["attention_mask"].sum(dim=1).min()) >= 2


def test_perplexity_is_that_of_all_tokens(model: nn.Module, source: str) -> None:
    task = load_task(source, model=model, window=16, calibration=2)
    ids = task.inputs["input_ids"]
    with torch.inference_mode():
        logits = model(**task.inputs).logits
    losses = F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), task.labels[:, 1:].reshape(-1), ignore_index=IGNORED
    )
    found = task.summarize(np.stack([scores(model, task, 4)] * 2))
    assert ids.shape[1] == 16
    assert found.mean == pytest.approx(float(losses.exp()), rel=1e-5)
    low, high = found.ci95
    assert low < found.mean < high


def test_a_cache_changes_nothing_in_software(model: nn.Module, source: str) -> None:
    plain = load_task(source, model=model, window=16, stride=8, calibration=2)
    cached = load_task(source, model=model, window=16, stride=8, calibration=2, prefill=6, step=3)
    assert scores(model, cached, 5) == pytest.approx(scores(model, plain), abs=1e-5)
    assert cached.digest != plain.digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 99}, "task.window = 99: the model takes at most 32 tokens"),
        ({"window": 8, "stride": 9}, "task.stride = 9: must be from 1 to the window"),
        ({"window": 8, "prefill": 8}, "task.prefill = 8: must be below the window of 8"),
        ({"window": 32, "calibration": 8}, r"has 260 tokens but needs 290 \(256 of them for calibration\)"),
        ({"metric": "top1"}, "running text has perplexity"),
        ({"probe": True}, "does not apply to text: sources"),
        ({"step": 2}, "only a KV cache has steps"),
    ],
)
def test_windows_that_do_not_fit_are_one_line(
    model: nn.Module, source: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        load_task(source, model=model, **options)


def test_a_metric_of_another_package_scores_running_text(
    model: nn.Module, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexity once took its place, without a word."""

    class Ones(Metric):
        title: ClassVar[str] = "ones"
        sources: ClassVar[tuple[str, ...]] = ("text",)
        kind: Literal["ones"] = "ones"

        def scores(self, model: nn.Module, task: Any, batch: int) -> Any:
            return np.ones(len(task))

    monkeypatch.setitem(_kinds["metric"], "ones", Ones)
    options: dict[str, Any] = {"model": model, "metric": "ones", "window": 16, "calibration": 2}
    with pytest.raises(BadInput, match=r"labels of the kind 'classes', .* are tokens; set labels = 'tokens' in Ones"):
        load_task(source, **options)
    monkeypatch.setattr(Ones, "labels", "tokens")
    task = load_task(source, **options)
    assert (task.metric, set(scores(model, task))) == ("ones", {1.0})


WORDS = " ".join(tiny.WORDS * 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xd8\xff", r"is not text in UTF-8 \(byte 0xff at position 0\)"),
        (WORDS.encode("utf-16"), "is text in UTF-16"),
        (WORDS.encode("utf-16-le"), "null characters, as UTF-16"),
        (WORDS.encode("utf-16-be"), "null characters, as UTF-16"),
        (WORDS.encode("utf-32-be"), "null characters"),
        (f"{WORDS}\0".encode(), "null characters"),
        (b"\xef\xbb\xbf" + WORDS.encode("utf-8-sig"), "begins with two byte-order marks"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf \n\t\r\n", "holds no text but spaces"),
    ],
)
def test_a_file_that_is_no_text_is_one_line(model: nn.Module, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "image.txt").write_bytes(content)
    with pytest.raises(BadInput, match=rf"image\.txt.*{said}") as caught:
        load_task(f"text:{tmp_path / 'image.txt'}", model=model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_ends_of_lines_of_other_systems_mean_the_same(model: nn.Module, tmp_path: Path, end: str) -> None:
    read = []
    for name, newline in (("a.txt", "\n"), ("b.txt", end)):
        (tmp_path / name).write_bytes(newline.join(tiny.WORDS * 20).encode("utf-8-sig"))
        read.append(load_task(f"text:{tmp_path / name}", model=model, window=16))
    assert torch.equal(read[0].inputs["input_ids"], read[1].inputs["input_ids"])


def test_a_model_that_is_no_language_model_is_one_line(tmp_path: Path, source: str) -> None:
    encoder = load_model(f"hf:{tiny.bert(tmp_path / 'b')}", head="encoder")
    task = load_task(source, model=encoder, window=8)
    with pytest.raises(BadInput, match="choose a language model"):
        scores(Names(encoder).eval(), task)


class Names(nn.Module):
    """Takes what language models take, and returns features."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> torch.Tensor:
        found: torch.Tensor = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return found
