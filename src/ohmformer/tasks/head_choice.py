"""The head that a model needs for a task, from the source and metric of the task."""

from __future__ import annotations

from ohmformer.models.sources import task_reader
from ohmformer.tasks.metric_kinds import compares_features
from ohmformer.tasks.spec import TaskChoice


def head_for(choice: TaskChoice) -> str:
    """Return the head that a task needs.

    Returns:
        A key of `ohmformer.models.huggingface.AUTO`, or `auto` if any head of the model will do.

    Raises:
        BadInput: the task has no such source.
    """
    prefix = task_reader(choice.source)
    if prefix == "text":
        return "causal-lm"
    if prefix not in ("imagefolder", "csv"):
        return "auto"
    if choice.probe or compares_features(choice.metric):
        return "encoder"
    if prefix == "imagefolder":
        return "image-classification"
    from ohmformer.tasks.csv_table import is_pairs

    return "encoder" if is_pairs(choice) else "text-classification"
