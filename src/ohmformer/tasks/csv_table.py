"""Text classification and similarity of text pairs, from a table: `csv:FILE`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput, shown, suggest
from ohmformer.models.class_names import canonical_name, numbers_of_names
from ohmformer.models.preprocessing import Preparation, preparation, tokenizer_of
from ohmformer.models.sources import existing, first_line, is_failure
from ohmformer.models.tokenizers import check_known, check_token_ids
from ohmformer.tasks.image_folder import MAX_CLASSES, read_labels
from ohmformer.tasks.metric_kinds import is_allowed, label_kind
from ohmformer.tasks.reading import Reading
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.splits import SampleSets, calibration_size, in_hash_order, split
from ohmformer.tasks.task import Task
from ohmformer.textfiles import LARGEST_TEXT, read_text

CLASSIFICATION = ("text", "label")
"""Columns of a table of texts and classes."""

PAIRS = ("text_a", "text_b", "score")
"""Columns of a table of text pairs and their similarities."""

PARTS = ("calibration", "train", "test")
"""Values of the optional column `split`."""

MAX_FIELD = 2**31 - 1
"""Maximum number of characters in a field."""

_FIELD_LIMIT_LOCK = Lock()
"""The field limit of `csv` is global to the process. It is raised only while a table is read, and this lock makes one
thread at a time raise it and restore it."""

Row = dict[str, str]


def is_pairs(choice: TaskChoice) -> bool:
    """True if the first line of a table names the columns of text pairs; False for texts and classes.

    Raises:
        BadInput: the table has the columns of neither kind.
    """
    file = existing("task", choice.source)
    columns = _columns(choice, file)
    for kind in (PAIRS, CLASSIFICATION):
        if set(kind) <= set(columns):
            return kind is PAIRS
    raise BadInput(
        f"{choice.where}: has columns {', '.join(columns) or 'without names'}; name them text,label for "
        "classification, or text_a,text_b,score for similarity"
    )


def table_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """Read a table of texts as a task for a model.

    Args:
        choice: the task; its source is the file.
        model: a model from `load_model`, with its tokenizer.

    Raises:
        BadInput: a column, a row or a label cannot be used; the message names it.
    """
    pairs = is_pairs(choice)
    allowed = ("pearson", "spearman") if pairs else ("accuracy", "fidelity")
    if not is_allowed(choice.metric, "csv", allowed):
        raise BadInput(
            f"task.metric = {shown(choice.metric)}: this table is scored by {' or '.join(allowed)}; choose one of them"
        )
    if pairs and choice.probe:
        raise BadInput("task.probe = true: pairs of texts have no classes; leave it out")
    rows = _rows(choice, existing("task", choice.source))
    return _similarity(choice, model, rows) if pairs else _classification(choice, model, rows)


def _read_fields(file: Path, limit: int | None = None) -> list[list[str]]:
    """Read the fields of the first `limit` lines of a table; None reads all.

    Raises:
        BadInput: the file is not text in UTF-8, or its quotes do not match.
    """
    text = read_text(file, LARGEST_TEXT)
    with _FIELD_LIMIT_LOCK:
        limit_before = csv.field_size_limit(MAX_FIELD)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), strict=True)
            return list(islice(reader, limit))
        except csv.Error as error:
            line = f"{file}: line {reader.line_num}: its quotes do not match ({error})"
            raise BadInput(f"{line}; write a quote within a quoted text twice") from error
        finally:
            csv.field_size_limit(limit_before)


def _columns(choice: TaskChoice, file: Path) -> list[str]:
    """Read the names of the columns.

    Raises:
        BadInput: as for `_read_fields`, or two columns have the same name.
    """
    names = [name.strip() for line in _read_fields(file, 1) for name in line]
    if duplicate := next((name for name in (*CLASSIFICATION, *PAIRS, "split") if names.count(name) > 1), None):
        raise BadInput(f"{choice.where}: two columns are called {shown(duplicate)}; rename or remove one")
    return names


def _rows(choice: TaskChoice, file: Path) -> list[Row]:
    """Read all rows as column -> field, and refuse rows with missing or invalid fields."""
    columns = _columns(choice, file)
    lines = _read_fields(file)[1:]
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(columns):
            raise BadInput(
                f"{file}: row {number} has {len(line)} fields but there are {len(columns)} columns; correct it"
            )
        rows.append(dict(zip(columns, (field.strip() for field in line), strict=True)))
        if "label" in rows[-1]:
            rows[-1]["label"] = canonical_name(rows[-1]["label"])
        for column in ("text", "text_a", "text_b", *(["label"] if label_kind(choice.metric) != "none" else [])):
            if rows[-1].get(column) == "":
                raise BadInput(f"{file}: row {number} has no {column}; fill it or remove the row")
        if rows[-1].get("split", "test") not in PARTS:
            raise BadInput(
                f"{file}: row {number}: split = {shown(rows[-1]['split'])}; {suggest(rows[-1]['split'], list(PARTS))}"
            )
    if not rows:
        raise BadInput(f"{file}: has no rows; add samples below the line with the column names")
    return rows


def _classification(choice: TaskChoice, model: nn.Module | None, rows: list[Row]) -> Task:
    """Texts with classes as a task."""
    texts = [row["text"] for row in rows]
    encode = Encoder(choice, model)
    parts = _split_by_column(choice, rows) if "split" in rows[0] else split(choice, texts)
    labels = _labels(choice, rows, preparation(model))

    def part(indices: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        return encode([texts[index] for index in indices]), labels[indices]

    return Task(
        choice.source,
        *part(parts.test),
        *part(parts.calibration),
        metric=choice.metric or "accuracy",
        train=part(parts.train) if parts.train else None,
        reading=reading_of(choice, model),
        notes=encode.notes([texts[index] for index in parts.test]),
    ).first(choice.limit)


def _labels(choice: TaskChoice, rows: list[Row], prepared: Preparation) -> Tensor:
    """The labels of all rows: class numbers, or the numbers of the column if the metric reads numbers; else zeros."""
    kind = label_kind(choice.metric)
    if kind == "none":
        return torch.zeros(len(rows), dtype=torch.int64)
    if kind == "numbers":
        return torch.tensor([_number(choice, row, "label") for row in rows], dtype=torch.float64)
    class_of = _classes(choice, [row["label"] for row in rows], prepared)
    return torch.tensor([class_of[row["label"]] for row in rows])


def _split_by_column(choice: TaskChoice, rows: list[Row]) -> SampleSets:
    """Split rows by the column `split`."""
    members = {part: [index for index, row in enumerate(rows) if row["split"] == part] for part in PARTS}
    needed = [part for part in PARTS if part != "train" or choice.probe]
    for part in needed:
        if not members[part]:
            raise BadInput(f"{choice.where}: no row has split = {part}; mark some, or remove the column")
    calibration = members["calibration"][: choice.calibration] if choice.calibration else members["calibration"]
    train = members["train"][: choice.train] if choice.train else members["train"]
    return SampleSets(calibration, train if choice.probe else [], members["test"])


def _classes(choice: TaskChoice, labels: list[str], prepared: Preparation) -> dict[str, int]:
    """Return label -> class number: from the labels file, the model's class names or the label as a number.

    For a probe without a labels file, classes are numbered in the sorted order of their labels.

    Raises:
        BadInput: a label is not a class of the model.
    """
    names = sorted(set(labels))
    if choice.labels:
        known = read_labels(choice.labels)
    elif choice.probe:
        known = {name: number for number, name in enumerate(names)}
    elif prepared.names:
        known = _by_name(choice.where, names, prepared.names)
    else:
        known = {}
    if set(names) <= set(known):
        return known
    if not known:
        most = prepared.classes or MAX_CLASSES
        known = {name: int(name) for name in names if name.isdecimal() and len(name) < 10 and int(name) < most}
        if len(known) == len(names):
            return known
    unknown = next(name for name in names if name not in known)
    classes = (
        f"its classes are {', '.join(prepared.names)}"
        if prepared.names
        else (f"it has {prepared.classes} classes" if prepared.classes else "labels must be numbers")
    )
    raise BadInput(
        f"{choice.where}: label {repr(unknown)[:80]} is not a class of the model: {classes}; number labels from 0, or "
        "name them in a file: task.labels = 'FILE'"
    )


def _by_name(where: str, labels: list[str], names: tuple[str, ...]) -> dict[str, int]:
    """Return label -> class number for labels that name a class; case is ignored if the name stays unambiguous.

    Raises:
        BadInput: a label is the name of several classes.
    """
    exact = numbers_of_names(where, labels, names)
    folded: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        folded.setdefault(canonical_name(name).casefold(), []).append(number)
    unambiguous = {name: numbers[0] for name, numbers in folded.items() if len(numbers) == 1}
    classes = {label: exact.get(label, unambiguous.get(label.casefold())) for label in labels}
    return {label: number for label, number in classes.items() if number is not None}


def _similarity(choice: TaskChoice, model: nn.Module | None, rows: list[Row]) -> Task:
    """Pairs of texts as a task. Each distinct text is one sample, which runs once per chip, however many its pairs."""
    has_split = "split" in rows[0]
    scored = [row for row in rows if not has_split or row["split"] == "test"]
    texts = list(dict.fromkeys(row[column] for row in scored for column in PAIRS[:2]))
    if has_split:
        calibrating = list(dict.fromkeys(row[c] for row in rows if row["split"] == "calibration" for c in PAIRS[:2]))
        if not calibrating or set(calibrating) & set(texts):
            raise BadInput(f"{choice.where}: the column split needs calibration rows whose texts are in no test row")
        calibrating = calibrating[: choice.calibration] if choice.calibration else calibrating
    else:
        order = in_hash_order(texts)
        calibrating = [texts[index] for index in order[: calibration_size(choice, len(texts))]]
        scored = [row for row in scored if row["text_a"] not in calibrating and row["text_b"] not in calibrating]
        texts = list(dict.fromkeys(row[column] for row in scored for column in PAIRS[:2]))
    if len(scored) < 4:
        raise BadInput(f"{choice.where}: only {len(scored)} pairs are left to score; give 4 or more")
    number_of = {text: number for number, text in enumerate(texts)}
    encode = Encoder(choice, model)
    pairs = torch.tensor([[number_of[row["text_a"]], number_of[row["text_b"]]] for row in scored])
    return Task(
        choice.source,
        encode(texts),
        torch.tensor([_number(choice, row, "score") for row in scored], dtype=torch.float64),
        encode(calibrating),
        torch.zeros(len(calibrating), dtype=torch.int64),
        metric=choice.metric or "pearson",
        pairs=pairs,
        reading=reading_of(choice, model),
        notes=encode.notes(texts),
    ).first(choice.limit)


def _number(choice: TaskChoice, row: Row, column: str) -> float:
    """The finite number in a column of a row."""
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"{choice.where}: {column} = {shown(row[column])} is not a number; correct or remove that row")
    return number


class Encoder:
    """Converts texts to tokens for one model. Texts longer than the model or the window allows are truncated."""

    def __init__(self, choice: TaskChoice, model: nn.Module | None) -> None:
        self.where = choice.where
        self.tokenizer = tokenizer_of(model, choice.source)
        self.words = preparation(model).words
        self.longest = min(filter(None, (preparation(model).max_tokens, choice.window)), default=None)

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Encode N texts as one set.

        Returns:
            Token numbers and masks [N, T], padded to the longest of all texts: padding is independent of batches.

        Raises:
            BadInput: the tokenizer fails on the texts, or the model has no word vector for a token.
        """
        options: dict[str, Any] = {"truncation": True, "max_length": self.longest} if self.longest else {}
        try:
            encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt", **options)
        except BaseException as error:
            if not is_failure(error):
                raise
            raise BadInput(
                f"{self.where}: the model's tokenizer fails on its texts ({first_line(error)}); correct "
                "tokenizer_config.json, such as its pad_token, or choose another model"
            ) from error
        check_token_ids(self.where, encoded["input_ids"], self.words)
        return {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}

    def notes(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return remarks on truncated texts and unknown tokens.

        Raises:
            BadInput: nearly all tokens are unknown.
        """
        ids = self.tokenizer(list(texts), verbose=False)["input_ids"]
        unknown = check_known(self.where, self.tokenizer, ids)
        truncated = sum(len(text) > self.longest for text in ids) if self.longest else 0
        note = f"{truncated} of {len(texts)} texts are longer than {self.longest} tokens and are truncated"
        return (*([note] if truncated else ()), *unknown)


def reading_of(choice: TaskChoice, model: nn.Module | None) -> Reading:
    """Return the pooling of features: from the task, else from the model's folder, else the mean over tokens."""
    pooling = preparation(model).pooling or "mean" if choice.pooling == "auto" else choice.pooling
    return Reading(pooling=pooling)
