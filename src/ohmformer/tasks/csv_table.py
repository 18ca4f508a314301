"""Text classification and similarity of text pairs, from tables as `csv:FILE`."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput, suggest
from ohmformer.models.preprocessing import Preparation, preparation, tokenizer_of
from ohmformer.models.sources import existing
from ohmformer.tasks.image_folder import read_labels
from ohmformer.tasks.load import Reading, Task
from ohmformer.tasks.metric import goes_with
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.splits import Split, calibration_size, in_hash_order, split

CLASSIFICATION = ("text", "label")
PAIRS = ("text_a", "text_b", "score")
PARTS = ("calibration", "train", "test")
"""What the column `split` may say, where there is one."""

Row = dict[str, str]


def is_pairs(choice: TaskChoice) -> bool:
    """Whether a table holds text pairs, by its first line.

    Raises:
        BadInput: it has the columns of neither kind.
    """
    file = existing("task", choice.source)
    columns = _columns(choice, file)
    for wanted in (PAIRS, CLASSIFICATION):
        if set(wanted) <= set(columns):
            return wanted is PAIRS
    raise BadInput(
        f"{choice.where}: has columns {', '.join(columns) or 'of no name'}; name them text,label for "
        "classification, or text_a,text_b,score for similarity"
    )


def table_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """A table of texts as a task for a model.

    Raises:
        BadInput: columns, rows or labels that cannot be used; each is named.
    """
    pairs = is_pairs(choice)
    allowed = ("pearson", "spearman") if pairs else ("accuracy", "fidelity")
    if not goes_with(choice.metric, "csv", allowed):
        raise BadInput(f"task.metric = {choice.metric!r}: this table has {' or '.join(allowed)}; choose one of them")
    if pairs and choice.probe:
        raise BadInput("task.probe = true: pairs of texts have no classes; leave it out")
    rows = _rows(choice, existing("task", choice.source))
    return _similarity(choice, model, rows) if pairs else _classification(choice, model, rows)


def _columns(choice: TaskChoice, file: Path) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as content:
            return [name.strip() for name in next(csv.reader(content), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{choice.where}: is no table in UTF-8 ({error}); save it as CSV") from error


def _rows(choice: TaskChoice, file: Path) -> list[Row]:
    columns = _columns(choice, file)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with open(file, encoding="utf-8-sig", newline="") as content:
            lines = list(csv.reader(content))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{choice.where}: is no table in UTF-8 ({error}); save it as CSV") from error
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(columns):
            raise BadInput(f"{file}: row {number} has {len(line)} fields but there are {len(columns)} columns; mend it")
        rows.append(dict(zip(columns, (field.strip() for field in line), strict=True)))
        for column in ("text", "text_a", "text_b"):
            if rows[-1].get(column) == "":
                raise BadInput(f"{file}: row {number} has no {column}; fill it or remove the row")
        if rows[-1].get("split", "test") not in PARTS:
            raise BadInput(
                f"{file}: row {number}: split = {rows[-1]['split']!r}; {suggest(rows[-1]['split'], list(PARTS))}"
            )
    if not rows:
        raise BadInput(f"{file}: has no rows; add samples below the line of column names")
    return rows


def _classification(choice: TaskChoice, model: nn.Module | None, rows: list[Row]) -> Task:
    texts, fidelity = [row["text"] for row in rows], choice.metric == "fidelity"
    encode = Encoder(choice, model)
    parts = _parts(choice, rows) if "split" in rows[0] else split(choice, texts)
    numbers = None if fidelity else _classes(choice, [row["label"] for row in rows], preparation(model))
    labels = torch.tensor([0 if numbers is None else numbers[row["label"]] for row in rows])

    def part(places: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        return encode([texts[place] for place in places]), labels[places]

    return Task(
        choice.source,
        *part(parts.test),
        *part(parts.calibration),
        metric="fidelity" if fidelity else "accuracy",
        train=part(parts.train) if parts.train else None,
        reading=reading_of(choice, model),
        notes=encode.notes([texts[place] for place in parts.test]),
    ).first(choice.limit)


def _parts(choice: TaskChoice, rows: list[Row]) -> Split:
    """As the column `split` says."""
    found = {part: [place for place, row in enumerate(rows) if row["split"] == part] for part in PARTS}
    needed = [part for part in PARTS if part != "train" or choice.probe]
    for part in needed:
        if not found[part]:
            raise BadInput(f"{choice.where}: no row has split = {part}; mark some, or remove the column")
    calibration = found["calibration"][: choice.calibration] if choice.calibration else found["calibration"]
    train = found["train"][: choice.train] if choice.train else found["train"]
    return Split(calibration, train if choice.probe else [], found["test"])


def _classes(choice: TaskChoice, labels: list[str], prepared: Preparation) -> dict[str, int]:
    """Number of each label: by the labels file, by the model's own names, as whole numbers, or sorted for a probe."""
    names = sorted(set(labels))
    if choice.labels:
        known = read_labels(choice.labels)
    elif choice.probe:
        known = {name: number for number, name in enumerate(names)}
    elif prepared.names:
        known = {name.casefold(): number for number, name in enumerate(prepared.names)}
        known = {name: known[name.casefold()] for name in names if name.casefold() in known}
    else:
        known = {}
    if set(names) <= set(known):
        return known
    if not known and all(name.isdecimal() for name in names):
        known = {name: int(name) for name in names}
        if prepared.classes is None or max(known.values()) < prepared.classes:
            return known
    unknown = next((name for name in names if name not in known), names[-1])
    classes = (
        f"the model's classes are {', '.join(prepared.names)}"
        if prepared.names
        else (f"the model has {prepared.classes} classes" if prepared.classes else "they must be numbers")
    )
    raise BadInput(
        f"{choice.where}: label {unknown!r} is none of the model's: {classes}; number labels from 0, or name "
        "them in a file: task.labels = 'FILE'"
    )


def _similarity(choice: TaskChoice, model: nn.Module | None, rows: list[Row]) -> Task:
    """Texts are numbered by first appearance, each is computed once per chip, however many pairs it is in."""
    given = "split" in rows[0]
    scored = [row for row in rows if not given or row["split"] == "test"]
    texts = list(dict.fromkeys(row[column] for row in scored for column in PAIRS[:2]))
    if given:
        held = list(dict.fromkeys(row[c] for row in rows if row["split"] == "calibration" for c in PAIRS[:2]))
        if not held or set(held) & set(texts):
            raise BadInput(f"{choice.where}: split needs calibration rows, of texts that no test row has")
        held = held[: choice.calibration] if choice.calibration else held
    else:
        order = in_hash_order(texts)
        held = [texts[place] for place in order[: calibration_size(choice, len(texts))]]
        scored = [row for row in scored if row["text_a"] not in held and row["text_b"] not in held]
        texts = list(dict.fromkeys(row[column] for row in scored for column in PAIRS[:2]))
    if len(scored) < 4:
        raise BadInput(f"{choice.where}: {len(scored)} pairs are left to score; give 4 or more")
    place = {text: number for number, text in enumerate(texts)}
    encode = Encoder(choice, model)
    pairs = torch.tensor([[place[row["text_a"]], place[row["text_b"]]] for row in scored])
    return Task(
        choice.source,
        encode(texts),
        torch.tensor([_score(choice, row) for row in scored], dtype=torch.float64),
        encode(held),
        torch.zeros(len(held), dtype=torch.int64),
        metric=choice.metric or "pearson",
        pairs=pairs,
        reading=reading_of(choice, model),
        notes=encode.notes(texts),
    ).first(choice.limit)


def _score(choice: TaskChoice, row: Row) -> float:
    try:
        found = float(row["score"])
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise BadInput(f"{choice.where}: score = {row['score']!r} is no number; mend or remove that row")
    return found


class Encoder:
    """Texts to tokens, as one model wants them; what is longer than it takes loses its end."""

    def __init__(self, choice: TaskChoice, model: nn.Module | None) -> None:
        self.tokenizer = tokenizer_of(model, choice.source)
        self.longest = min(filter(None, (preparation(model).max_tokens, choice.window)), default=None)

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens and mask [N, T], padded to the longest of these texts, so that padding depends on no batch."""
        options: dict[str, Any] = {"truncation": True, "max_length": self.longest} if self.longest else {}
        found = self.tokenizer(list(texts), padding=True, return_tensors="pt", **options)
        return {name: found[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in found}

    def notes(self, texts: Sequence[str]) -> tuple[str, ...]:
        """How many texts lose their end."""
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        cut = sum(length > self.longest for length in lengths) if self.longest else 0
        return (f"{cut} of {len(texts)} texts are longer than {self.longest} tokens and lose their end",) if cut else ()


def reading_of(choice: TaskChoice, model: nn.Module | None) -> Reading:
    """How features are read off: as the task, then the model's folder says, else by the mean of tokens."""
    pooling = preparation(model).pooling or "mean" if choice.pooling == "auto" else choice.pooling
    return Reading(pooling=pooling)
