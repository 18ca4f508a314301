"""Names of the classes of a model: read from its configuration, and looked up for the labels of data."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput, shown


def check_class_names(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse classes of a config.json that are not numbered from 0, lack a name, or differ between its fields.

    Two classes may have the same name, as in ImageNet; data cannot name them then (`numbers_of_names`).

    Args:
        file: the file, for messages.
        content: its content.

    Raises:
        BadInput: `num_labels`, `id2label` or `label2id` cannot be used.
    """
    count, names, numbers = (content.get(key) for key in ("num_labels", "id2label", "label2id"))
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise BadInput(f"{file}: num_labels = {shown(count)}: must be a number of classes, 1 or more; correct it")
    if names is None:
        return
    if not isinstance(names, dict) or not names:
        raise BadInput(f'{file}: id2label = {shown(names)}: must be a table such as {{"0": "cat", "1": "dog"}}')
    if sorted(names) != sorted(str(number) for number in range(len(names))):
        missing = next(str(number) for number in range(len(names)) if str(number) not in names)
        raise BadInput(f"{file}: id2label has {len(names)} names but none for class {missing}; number them from 0")
    for number, name in names.items():
        if not isinstance(name, (str, int)) or not str(name).strip():
            raise BadInput(f"{file}: id2label: class {number} = {shown(name)}: must be a name; correct it")
    if count is not None and count != len(names):
        raise BadInput(f"{file}: num_labels = {count}: id2label has {len(names)} names; correct one of them")
    if isinstance(numbers, dict):
        _check_inverse(file, names, numbers)


def _check_inverse(file: Path, names: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Refuse a table `label2id` that gives a name another number than `id2label`."""
    known: dict[str, list[str]] = {}
    for number, name in names.items():
        known.setdefault(str(name), []).append(number)
    for name, number in numbers.items():
        if name in known and str(number) not in known[name]:
            raise BadInput(
                f"{file}: label2id: {shown(name)} is class {shown(number)}, but class {known[name][0]} in id2label; "
                "correct one of them"
            )


def class_names(config: Any) -> tuple[str, ...]:
    """Return the names of the classes of a model, in order; `LABEL_0` and so on where its configuration has none."""
    names = getattr(config, "id2label", None) or {}
    return tuple(str(names.get(index, f"LABEL_{index}")) for index in range(config.num_labels))


def canonical_name(name: str) -> str:
    """Return a name by which equal names are equal texts: an accented letter may be one character or two (NFC)."""
    return unicodedata.normalize("NFC", name)


def numbers_of_names(where: str, labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Look up the class numbers of those labels that are names of classes.

    Args:
        where: beginning of messages.
        labels: labels of data.
        names: names of the model's classes, in order.

    Returns:
        label -> class number; labels that are not names are left out.

    Raises:
        BadInput: a label is the name of several classes.
    """
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(canonical_name(name), []).append(number)
    found = {}
    for label in labels:
        if len(of_label := numbers.get(canonical_name(label), ())) > 1:
            raise BadInput(
                f"{where}: the model has {len(of_label)} classes called {shown(label)} "
                f"({', '.join(map(str, of_label))}); number the labels in a file: task.labels = 'FILE'"
            )
        if of_label:
            found[label] = of_label[0]
    return found
