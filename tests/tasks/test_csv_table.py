"""Tables of texts: classes, pairs, splits, and what is wrong with them in one line."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model
from ohmformer.models.preprocessing import preparation, remember
from ohmformer.registry import _kinds
from ohmformer.tasks.load import load_task
from ohmformer.tasks.metric_kinds import Metric
from ohmformer.tasks.probe import probed
from ohmformer.tasks.scoring import scores
from tests.tasks import tiny

pytest.importorskip("transformers")

WORDY = [("text_a", "text_b", "score"), *((a, b, "x") for a, b in zip("abcdefgh", "ijklmnop", strict=True))]
NUMBERED = [("text", "label"), *((word, 7) for word in tiny.WORDS[:10])]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return load_model(f"hf:{tiny.bert(tmp_path_factory.mktemp('bert'))}", head="encoder")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    names = {"id2label": {0: "NEG", 1: "POS"}, "label2id": {"NEG": 0, "POS": 1}}
    folder = tiny.bert(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification", **names)
    return load_model(f"hf:{folder}")


def test_labels_are_the_models_own_names_in_any_case(tmp_path: Path, classifier: nn.Module) -> None:
    task = load_task(f"csv:{tiny.reviews(tmp_path / 'r.csv')}", model=classifier)
    assert len(task) == 54
    assert task.metric == "accuracy"
    assert set(task.labels.tolist()) == {0, 1}
    assert set(task.inputs) >= {"input_ids", "attention_mask"}
    found = scores(classifier, task, 7)
    assert set(found) <= {0.0, 1.0}
    assert (found == scores(classifier, task, 54)).all(), "padding must not depend on the batch"


class _Sure(Metric):
    """A metric from elsewhere, which tables and running text take."""

    title: ClassVar[str] = "sure"
    sources: ClassVar[tuple[str, ...]] = ("csv", "text")
    kind: Literal["sure"] = "sure"

    def scores(self, model: nn.Module, task: Any, batch: int) -> Any:
        return np.full(len(task), 0.5)


def test_a_metric_of_another_package_scores_a_table(
    tmp_path: Path, classifier: nn.Module, encoder: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default metric once took its place, without a word."""
    monkeypatch.setitem(_kinds["metric"], "sure", _Sure)
    file = tiny.reviews(tmp_path / "r.csv")
    task = load_task(f"csv:{file}", model=classifier, metric="sure")
    assert (task.metric, set(scores(classifier, task))) == ("sure", {0.5})
    monkeypatch.setattr(_Sure, "labels", "none")
    assert load_task(f"csv:{file}", model=classifier, metric="sure").labels.eq(0).all()
    monkeypatch.setattr(_Sure, "labels", "numbers")
    with pytest.raises(BadInput, match=r"label = '\w+' is not a number; correct or remove that row"):
        load_task(f"csv:{file}", model=classifier, metric="sure")
    numbered = tiny.table(
        tmp_path / "n.csv", ("text", "label"), *((s, n / 4) for n, s in enumerate(tiny.sentences(12)))
    )
    found = load_task(f"csv:{numbered}", model=classifier, metric="sure").labels
    assert {label % 0.25 for label in found.tolist()} == {0.0}
    assert found.max() > 1


def test_default_names_of_classes_are_names(tmp_path: Path) -> None:
    model = load_model(f"hf:{tiny.bert(tmp_path / 'b', 'BertForSequenceClassification', num_labels=2)}")
    texts = tiny.sentences(12)
    for write in ("LABEL_{}", "label_{}", "{}"):
        rows = [(text, write.format(n % 2)) for n, text in enumerate(texts)]
        task = load_task(f"csv:{tiny.table(tmp_path / 't.csv', ('text', 'label'), *rows)}", model=model)
        assert set(task.labels.tolist()) == {0, 1}
    file = tiny.table(tmp_path / "t.csv", ("text", "label"), *((text, str(n % 3)) for n, text in enumerate(texts)))
    with pytest.raises(BadInput, match="label '2' is not a class of the model: its classes are LABEL_0, LABEL_1"):
        load_task(f"csv:{file}", model=model)


def test_names_that_differ_in_case_alone_are_told_apart(tmp_path: Path) -> None:
    names = {"id2label": {0: "us", 1: "US"}, "label2id": {"us": 0, "US": 1}}
    model = load_model(f"hf:{tiny.bert(tmp_path / 'b', 'BertForSequenceClassification', **names)}")
    rows = [(text, ("us", "US")[n % 2]) for n, text in enumerate(tiny.sentences(12))]
    task = load_task(f"csv:{tiny.table(tmp_path / 't.csv', ('text', 'label'), *rows)}", model=model, limit=11)
    assert sorted(set(task.labels.tolist())) == [0, 1]
    with pytest.raises(BadInput, match="label 'Us' is not a class of the model"):
        load_task(f"csv:{tiny.table(tmp_path / 't.csv', *[('text', 'label'), *rows, ('good', 'Us')])}", model=model)


GOOD = "text,label\n" + "".join(f"{text},{n % 2}\n" for n, text in enumerate(tiny.sentences(12)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.encode("utf-16"), "is text in UTF-16"),
        (GOOD.encode("utf-16-le"), "null characters, as UTF-16"),
        (GOOD.encode("utf-32-be"), "null characters"),
        (b"\xef\xbb\xbf" + GOOD.encode("utf-8-sig"), "begins with two byte-order marks"),
        (b" \n", "has columns without names"),
        ((GOOD + "a\0b,1\n").encode(), "null characters"),
        ((GOOD + '"good,1\nbad,1\n').encode(), "line 15: its quotes do not match"),
        ((GOOD + "good,1,2\n").encode(), "row 14 has 3 fields"),
        ((GOOD + "good film,\n").encode(), "row 14 has no label"),
        (GOOD.replace("text,label", "text,label,label").encode(), "two columns are called 'label'"),
        (GOOD.replace(",1\n", f",{'9' * 5000}\n").encode(), "label '9999"),
        (GOOD.replace(",1\n", ",-1\n").encode(), "label '-1' is not a class"),
        (b"", "the file is empty"),
    ],
)
def test_files_that_are_no_tables_are_one_line(
    tmp_path: Path, classifier: nn.Module, content: bytes, said: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        load_task(
            f"csv:{tmp_path / 't.csv'}",
            model=remember(copy.copy(classifier), replace(preparation(classifier), names=("0", "1"))),
        )
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode()])
def test_files_of_other_systems_are_read(tmp_path: Path, encoder: nn.Module, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    limit = csv.field_size_limit()
    assert len(load_task(f"csv:{tmp_path / 't.csv'}", model=encoder, metric="fidelity")) == 11
    assert csv.field_size_limit() == limit, "a limit of the whole process was moved"


def test_a_probe_on_clean_features(tmp_path: Path, encoder: nn.Module) -> None:
    task = load_task(f"csv:{tiny.reviews(tmp_path / 'r.csv', 200)}", model=encoder, probe=True, calibration=10)
    assert task.train is not None
    assert [len(task.calibration_labels), len(task.train[1]), len(task)] == [10, 114, 76]
    seen = [
        {tuple(row) for row in part["input_ids"][:, :3].tolist()}
        for part in (task.inputs, task.calibration, task.train[0])
    ]
    assert all(seen)
    assert scores(probed(encoder, task), task).mean() > 0.8


def test_equal_texts_lie_on_one_side(tmp_path: Path, encoder: nn.Module) -> None:
    rows = [(text, "a" if n % 2 else "b") for n, text in enumerate(tiny.sentences(20) * 3)]
    file = tiny.table(tmp_path / "t.csv", ("text", "label"), *rows)
    task = load_task(f"csv:{file}", model=encoder, probe=True, calibration=4)
    assert task.train is not None
    parts = [{tuple(filter(None, row)) for row in p["input_ids"].tolist()}
             for p in (task.inputs, task.calibration, task.train[0])]  # fmt: skip
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20


def test_the_order_of_rows_changes_no_split(tmp_path: Path, encoder: nn.Module) -> None:
    rows = [(text, str(n % 2)) for n, text in enumerate(tiny.sentences(30))]
    tasks = [
        load_task(f"csv:{tiny.table(tmp_path / f'{n}.csv', ('text', 'label'), *part)}", model=encoder, probe=True)
        for n, part in enumerate([rows, rows[::-1]])
    ]
    assert tasks[0].digest == tasks[1].digest


def test_a_split_column_is_obeyed(tmp_path: Path, encoder: nn.Module) -> None:
    parts = ["test"] * 6 + ["train"] * 6 + ["calibration"] * 3
    rows = [(text, str(n % 2), part) for n, (text, part) in enumerate(zip(tiny.sentences(15), parts, strict=True))]
    file = tiny.table(tmp_path / "t.csv", ("text", "label", "split"), *rows)
    task = load_task(f"csv:{file}", model=encoder, probe=True)
    assert task.train is not None
    assert (len(task), len(task.train[1]), len(task.calibration_labels)) == (6, 6, 3)


def test_pairs_compute_each_text_once(tmp_path: Path, encoder: nn.Module) -> None:
    task = load_task(f"csv:{tiny.ratings(tmp_path / 'p.csv')}", model=encoder)
    assert task.metric == "pearson"
    assert len(task.inputs["input_ids"]) == 9, "one of ten texts calibrates, and its pairs are not scored"
    assert len(task) == 36
    said = scores(encoder, task)
    assert task.summarize(said[None]).mean == pytest.approx(np.corrcoef(said, task.labels)[0, 1])
    few = load_task(f"csv:{tmp_path / 'p.csv'}", 5, model=encoder, metric="spearman")
    assert len(few) == 5
    assert scores(encoder, few) == pytest.approx(said[:5], abs=1e-6)


def test_pairs_of_a_split_column_keep_all_their_pairs(tmp_path: Path, encoder: nn.Module) -> None:
    known = tiny.sentences(8)
    rows = [(known[0], known[1], 0, "calibration")]
    rows += [(known[i], known[i + 1], i % 3, "test") for i in range(2, 7)]
    file = tiny.table(tmp_path / "p.csv", ("text_a", "text_b", "score", "split"), *rows)
    task = load_task(f"csv:{file}", model=encoder)
    assert (len(task), len(task.calibration_labels)) == (5, 2)
    tiny.table(file, ("text_a", "text_b", "score", "split"), *rows, (known[0], known[3], 1, "test"))
    with pytest.raises(BadInput, match="the column split needs calibration rows whose texts are in no test row"):
        load_task(f"csv:{file}", model=encoder)


def test_long_texts_are_truncated_with_a_note(tmp_path: Path, encoder: nn.Module) -> None:
    texts = [*tiny.sentences(8), "good " * 40]
    file = tiny.table(tmp_path / "t.csv", ("text", "label"), *((text, n % 2) for n, text in enumerate(texts)))
    task = load_task(f"csv:{file}", model=encoder, probe=True, calibration=1, train=1)
    assert task.inputs["input_ids"].shape[1] <= 12
    cut = load_task(f"csv:{file}", model=encoder, probe=True, calibration=1, train=1, window=2)
    assert cut.inputs["input_ids"].shape[1] == 2
    assert any("texts are longer than 2 tokens and are truncated" in note for note in cut.notes)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("text", "tag"), ("a", "b")], "has columns text, tag; name them text,label"),
        ([("text", "label")], "has no rows"),
        ([("text", "label"), ("good", "a"), ("bad",)], "row 3 has 1 fields but there are 2 columns"),
        ([("text", "label"), ("  ", "a")], "row 2 has no text"),
        ([("text", "label", "split"), ("good", "a", "tset")], "row 2: split = 'tset'; did you mean 'test'"),
        (WORDY, "score = 'x' is not a number"),
        ([("text_a", "text_b", "score"), ("good", "bad", "1")], "pairs are left to score"),
        (NUMBERED, "label '7' is not a class of the model: its classes are NEG, POS"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_one_line(
    tmp_path: Path, classifier: nn.Module, rows: list[tuple[object, ...]], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        load_task(f"csv:{tiny.table(tmp_path / 't.csv', *rows)}", model=classifier)
    assert "\n" not in str(caught.value)


def test_files_and_options_that_cannot_be_used_are_one_line(tmp_path: Path, encoder: nn.Module) -> None:
    (tmp_path / "latin.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    reviews, ratings = tiny.reviews(tmp_path / "r.csv"), tiny.ratings(tmp_path / "p.csv")
    for source, options, said in (
        (tmp_path / "nowhere.csv", {}, "there is no such file"),
        (tmp_path, {}, "it is a folder"),
        (tmp_path / "latin.csv", {}, r"latin\.csv: is not text in UTF-8 \(byte 0xff at position 11\)"),
        (reviews, {"metric": "pearson"}, "this table is scored by accuracy or fidelity"),
        (ratings, {"probe": True}, "pairs of texts have no classes"),
        (reviews, {"prefill": 3}, "does not apply to csv: sources"),
        (reviews, {"calibration": 60}, "none is left to score"),
    ):
        with pytest.raises(BadInput, match=said):
            load_task(f"csv:{source}", model=encoder, **options)
    with pytest.raises(BadInput, match="needs a model that reads text"):
        load_task(f"csv:{reviews}", model=nn.Linear(2, 2))
