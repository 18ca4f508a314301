"""Text classification and similarity of text pairs, from tables as `csv:FILE`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput, suggest
from ohmformer.models.preprocessing import Preparation, preparation, tokenizer_of
from ohmformer.models.sources import existing, first_line
from ohmformer.models.tokenizers import check_known, check_numbers
from ohmformer.tasks.image_folder import MOST_CLASSES, read_labels
from ohmformer.tasks.load import Reading, Task
from ohmformer.tasks.metric import goes_with
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.splits import Split, calibration_size, in_hash_order, split

CLASSIFICATION = ("text", "label")
PAIRS = ("text_a", "text_b", "score")
PARTS = ("calibration", "train", "test")
"""What the column `split` may say, where there is one."""

FIELD = 2**31 - 1
"""Characters of the longest field."""

_FIELDS = Lock()

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


def _lines(choice: TaskChoice, file: Path, most: int | None = None) -> list[list[str]]:
    """The fields of each line of a table, or of the first ones.

    Raises:
        BadInput: it is no text in UTF-8, or its quotes do not match.
    """
    with _FIELDS:  # the limit is one of the whole process
        before = csv.field_size_limit(FIELD)
        try:
            with open(file, encoding="utf-8-sig", newline="") as content:
                reader = csv.reader(content, strict=True)
                lines = list(islice(reader, most))
        except csv.Error as error:
            line = f"{file}: line {reader.line_num}: its quotes do not match ({error})"
            raise BadInput(f"{line}; write a quote within a quoted text twice") from error
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{choice.where}: is no table in UTF-8 ({first_line(error)}); save it as CSV") from error
        finally:
            csv.field_size_limit(before)
    if any("\0" in field for line in lines for field in line):
        raise BadInput(
            f"{choice.where}: is no table in UTF-8 (it holds NUL characters, as UTF-16 does); save it as CSV"
        )
    return lines


def _columns(choice: TaskChoice, file: Path) -> list[str]:
    """Names of the columns.

    Raises:
        BadInput: as `_lines`, or two columns that are read have one name.
    """
    names = [name.strip() for line in _lines(choice, file, 1) for name in line]
    if twice := next((name for name in (*CLASSIFICATION, *PAIRS, "split") if names.count(name) > 1), None):
        raise BadInput(f"{choice.where}: two columns are called {twice!r}; rename or remove one")
    return names


def _rows(choice: TaskChoice, file: Path) -> list[Row]:
    columns = _columns(choice, file)
    lines = _lines(choice, file)[1:]
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(columns):
            raise BadInput(f"{file}: row {number} has {len(line)} fields but there are {len(columns)} columns; mend it")
        rows.append(dict(zip(columns, (field.strip() for field in line), strict=True)))
        for column in ("text", "text_a", "text_b", *(["label"] if choice.metric != "fidelity" else [])):
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
        known = _by_name(names, prepared.names)
    else:
        known = {}
    if set(names) <= set(known):
        return known
    if not known:
        most = prepared.classes or MOST_CLASSES
        known = {name: int(name) for name in names if name.isdecimal() and len(name) < 10 and int(name) < most}
        if len(known) == len(names):
            return known
    unknown = next(name for name in names if name not in known)
    classes = (
        f"the model's classes are {', '.join(prepared.names)}"
        if prepared.names
        else (f"the model has {prepared.classes} classes" if prepared.classes else "they must be numbers")
    )
    raise BadInput(
        f"{choice.where}: label {repr(unknown)[:80]} is none of the model's: {classes}; number labels from 0, or name "
        "them in a file: task.labels = 'FILE'"
    )


def _by_name(labels: list[str], names: tuple[str, ...]) -> dict[str, int]:
    """Number of each label that is the name of a class, in any case where only one name is meant."""
    exact = {name: number for number, name in enumerate(names)}
    loose: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        loose.setdefault(name.casefold(), []).append(number)
    alone = {name: numbers[0] for name, numbers in loose.items() if len(numbers) == 1}
    found = {label: exact.get(label, alone.get(label.casefold())) for label in labels}
    return {label: number for label, number in found.items() if number is not None}


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
        self.where = choice.where
        self.tokenizer = tokenizer_of(model, choice.source)
        self.words = preparation(model).words
        self.longest = min(filter(None, (preparation(model).max_tokens, choice.window)), default=None)

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens and mask [N, T], padded to the longest of these texts, so that padding depends on no batch.

        Raises:
            BadInput: the tokenizer fails on them, or the model has no vectors for what it gives.
        """
        options: dict[str, Any] = {"truncation": True, "max_length": self.longest} if self.longest else {}
        try:
            found = self.tokenizer(list(texts), padding=True, return_tensors="pt", **options)
        except Exception as error:
            raise BadInput(
                f"{self.where}: the model's tokenizer fails on its texts ({first_line(error)}); mend "
                "tokenizer_config.json, such as its pad_token, or take another model"
            ) from error
        check_numbers(self.where, found["input_ids"], self.words)
        return {name: found[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in found}

    def notes(self, texts: Sequence[str]) -> tuple[str, ...]:
        """How many texts lose their end, and how many tokens are unknown.

        Raises:
            BadInput: nearly all are unknown.
        """
        ids = self.tokenizer(list(texts), verbose=False)["input_ids"]
        unknown = check_known(self.where, self.tokenizer, ids)
        cut = sum(len(text) > self.longest for text in ids) if self.longest else 0
        lost = f"{cut} of {len(texts)} texts are longer than {self.longest} tokens and lose their end"
        return (*([lost] if cut else ()), *unknown)


def reading_of(choice: TaskChoice, model: nn.Module | None) -> Reading:
    """How features are read off: as the task, then the model's folder says, else by the mean of tokens."""
    pooling = preparation(model).pooling or "mean" if choice.pooling == "auto" else choice.pooling
    return Reading(pooling=pooling)
