"""The choice of data and metric in a study. Free of torch."""

from __future__ import annotations

from typing import Literal

from ohmformer.errors import shown
from ohmformer.quantities import Count
from ohmformer.schema import Spec
from ohmformer.tasks.metric_kinds import MetricName

Pooling = Literal["auto", "mean", "cls"]


class TaskChoice(Spec):
    """The data and the metric. docs/tasks.md lists which field applies to which source.

    Attributes:
        source: `bundled:NAME`, `imagefolder:FOLDER`, `csv:FILE`, `text:FILE`, or `python:MODULE:FUNCTION` for a
            function that returns a `Task`.
        limit: number of test samples (pairs, windows), counted from the first; None takes all.
        metric: name of the metric; None takes the default of the source.
        labels: file that maps folder names or labels to the model's classes: one name per line in the order of the
            classes, or a JSON table from name to number.
        calibration: maximum number of samples for calibration, which are never scored.
        probe: whether to put a linear classifier, fitted on training samples, behind an embedding model.
        train: maximum number of samples that the probe is fitted on.
        pooling: how token features become the features of a sample: `mean` over tokens, first token (`cls`), or as the
            model's folder specifies (`auto`).
        window: tokens that the model sees at a time.
        stride: tokens between the starts of windows.
        prefill: tokens that enter a KV cache in the first call; None uses no cache.
        step: tokens in each later call.
    """

    source: str
    limit: Count | None = None
    metric: MetricName | None = None
    labels: str | None = None
    calibration: Count | None = None
    probe: bool = False
    train: Count | None = None
    pooling: Pooling = "auto"
    window: Count | None = None
    stride: Count | None = None
    prefill: Count | None = None
    step: Count = 1

    @property
    def where(self) -> str:
        """How error messages refer to the task."""
        return f"task.source = {shown(self.source)}"
