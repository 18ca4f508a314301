"""What may be asked of which model: choices of model and data, and the metrics. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ohmformer.schema import Spec

Positive = Annotated[int, Field(ge=1)]
Pooling = Literal["auto", "mean", "cls"]
MetricName = Literal["top1", "top5", "accuracy", "pearson", "spearman", "perplexity", "fidelity"]


@dataclass(frozen=True)
class Metric:
    """How a metric is called and shown.

    Attributes:
        title: in words, as an axis is named.
        factor: what a stored value is multiplied with to be shown.
        unit: behind a shown value; empty for plain numbers.
        digits: behind the decimal point when shown.
        better: which way is better.
        scores: `hit` (0 or 1 for each sample), `mean` (a number for each sample, averaged), or `whole`: only all
            samples together have a value.
        limits: between which it lies when shown; None where there is no bound.
    """

    title: str
    factor: float = 1.0
    unit: str = ""
    digits: int = 3
    better: Literal["higher", "lower"] = "higher"
    scores: Literal["hit", "mean", "whole"] = "mean"
    limits: tuple[float, float] | None = None

    def show(self, value: float, sign: str = "") -> str:
        """A stored value as a person reads it, without its unit; `sign` is '+' for differences."""
        return f"{self.factor * value:{sign}.{self.digits}f}"


_SHARE = {"factor": 100.0, "unit": "%", "digits": 1, "scores": "hit", "limits": (0.0, 100.0)}
METRICS: dict[str, Metric] = {
    "top1": Metric("accuracy", **_SHARE),  # type: ignore[arg-type]
    "top5": Metric("top-5 accuracy", **_SHARE),  # type: ignore[arg-type]
    "accuracy": Metric("accuracy", **_SHARE),  # type: ignore[arg-type]
    "pearson": Metric("Pearson correlation", scores="whole"),
    "spearman": Metric("Spearman correlation", scores="whole"),
    "perplexity": Metric("perplexity", digits=2, better="lower", scores="whole"),
    "fidelity": Metric("cosine with the software model", digits=4),
}
"""Name in results and studies -> how it is shown."""


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
    limit: Positive | None = None
    metric: MetricName | None = None
    labels: str | None = None
    calibration: Positive | None = None
    probe: bool = False
    train: Positive | None = None
    pooling: Pooling = "auto"
    window: Positive | None = None
    stride: Positive | None = None
    prefill: Positive | None = None
    step: Positive = 1

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"task.source = {self.source!r}"
