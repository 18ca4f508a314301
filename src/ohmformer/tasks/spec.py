"""What may be asked of which model: choices of model and data, and the metrics. Free of torch."""

from __future__ import annotations

from typing import Literal

from ohmformer.quantities import Count
from ohmformer.schema import Spec
from ohmformer.tasks.metric import METRICS as METRICS
from ohmformer.tasks.metric import Metric as Metric
from ohmformer.tasks.metric import MetricName

Pooling = Literal["auto", "mean", "cls"]


class TaskChoice(Spec):
    """The data, and what is measured on it. Which field goes with which source stands in docs/tasks.md.

    Attributes:
        source: `bundled:NAME`, `imagefolder:FOLDER`, `csv:FILE`, `text:FILE`, or `python:MODULE:FUNCTION` for a
            function that returns a `Task`.
        limit: how many test samples (pairs, windows), from the first on; None takes all.
        metric: what is measured; None takes what is usual for the source.
        labels: a file that says which class of the model a folder or label is: one name a line in the order of the
            classes, or a JSON table of name and number.
        calibration: how many samples at most are kept for calibration, and never scored.
        probe: put a linear classifier, fitted on training samples, behind an embedding model.
        train: how many samples at most the probe is fitted on.
        pooling: how token features become those of a sample: their mean, the first token's, or as the model has it.
        window: tokens that the model sees at a time.
        stride: tokens between the starts of windows.
        prefill: tokens that enter a KV cache at once, before the others follow; None uses no cache.
        step: tokens that enter the cache together after that.
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
        """How messages begin."""
        return f"task.source = {self.source!r}"
