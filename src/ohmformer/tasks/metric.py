"""What may be measured on a task: a family of metrics. Free of torch until a model is scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ohmformer.errors import BadInput, suggest
from ohmformer.registry import Family, known, named, register

if TYPE_CHECKING:
    from torch import nn

    from ohmformer.stats.intervals import Floats, Summary
    from ohmformer.tasks.load import Task


class Metric(Family):
    """How well a model does on a task: what is scored of each sample, what that comes to, and how it is shown.

    Attributes:
        title: in words, as an axis is named.
        factor: what a stored value is multiplied with to be shown.
        unit: behind a shown value; empty for plain numbers.
        digits: behind the decimal point when shown.
        better: which way is better.
        counts: `hit` (0 or 1 for each sample), `mean` (a number for each sample, averaged), or `whole`: only all
            samples together have a value.
        limits: between which it lies when shown; None where there is no bound.
        sources: prefixes of the tasks that may be measured with it by name, besides those that a function makes.
    """

    family: ClassVar[str] = "metric"
    title: ClassVar[str] = ""
    factor: ClassVar[float] = 1.0
    unit: ClassVar[str] = ""
    digits: ClassVar[int] = 3
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    counts: ClassVar[Literal["hit", "mean", "whole"]] = "mean"
    limits: ClassVar[tuple[float, float] | None] = None
    sources: ClassVar[tuple[str, ...]] = ()

    kind: str

    @abstractmethod
    def scores(self, model: nn.Module, task: Task, batch: int) -> Floats:
        """Score of every test sample [N] (pair, window), float64; finite.

        Args:
            model: in evaluation mode.
            task: what to score on.
            batch: samples per call; `ohmformer.tasks.model_outputs.asked` calls the model batch by batch.
        """

    def summarize(self, scores: Floats, task: Task) -> Summary:
        """What the scores [C, N] of C chips come to: by default their mean, with its 95 % interval."""
        from ohmformer.stats.intervals import mean_summary

        return mean_summary(scores)

    def show(self, value: float, sign: str = "") -> str:
        """A stored value as a person reads it, without its unit; `sign` is '+' for differences."""
        return f"{self.factor * value:{sign}.{self.digits}f}"

    @classmethod
    def check_class(cls) -> None:
        """Refuse a metric without a title."""
        if not cls.title:
            raise BadInput(f"register({cls.__name__}): has no title; say in words what is measured")


@register
class Top1(Metric):
    """Share of samples whose largest logit is at the label."""

    title = "accuracy"
    factor = 100.0
    unit = "%"
    digits = 1
    counts = "hit"
    limits = (0.0, 100.0)
    best: ClassVar[int] = 1

    kind: Literal["top1"] = "top1"

    def scores(self, model: nn.Module, task: Task, batch: int) -> Floats:
        """1 where the label is among the `best` largest logits, else 0."""
        return _scorers().hits(model, task, batch, self.best)  # type: ignore[no-any-return]


@register
class Top5(Top1):
    """Share of samples whose label is among the five largest logits."""

    title = "top-5 accuracy"
    best = 5

    kind: Literal["top5"] = "top5"  # type: ignore[assignment]


@register
class Accuracy(Top1):
    """`top1` of texts."""

    kind: Literal["accuracy"] = "accuracy"  # type: ignore[assignment]


@register
class Pearson(Metric):
    """Correlation of the cosines of pairs with what people said."""

    title = "Pearson correlation"
    counts = "whole"

    kind: Literal["pearson"] = "pearson"

    def scores(self, model: nn.Module, task: Task, batch: int) -> Floats:
        """Cosine of the features of each pair [P]."""
        return _scorers().similarities(model, task, batch)  # type: ignore[no-any-return]

    def summarize(self, scores: Floats, task: Task) -> Summary:
        """The correlation."""
        return _scorers().correlation(scores, task, self.kind)  # type: ignore[no-any-return]


@register
class Spearman(Pearson):
    """The same of ranks."""

    title = "Spearman correlation"

    kind: Literal["spearman"] = "spearman"  # type: ignore[assignment]


@register
class Perplexity(Metric):
    """exp of the mean negative log-likelihood of a token."""

    title = "perplexity"
    digits = 2
    better = "lower"
    counts = "whole"

    kind: Literal["perplexity"] = "perplexity"

    def scores(self, model: nn.Module, task: Task, batch: int) -> Floats:
        """Mean negative log-likelihood of each window's tokens."""
        return _scorers().losses(model, task, batch)  # type: ignore[no-any-return]

    def summarize(self, scores: Floats, task: Task) -> Summary:
        """Over all tokens."""
        return _scorers().perplexity(scores, task)  # type: ignore[no-any-return]


@register
class Fidelity(Metric):
    """How much a sample's features are those of the software model."""

    title = "cosine with the software model"
    digits = 4

    kind: Literal["fidelity"] = "fidelity"

    def scores(self, model: nn.Module, task: Task, batch: int) -> Floats:
        """Cosine of both."""
        return _scorers().fidelities(model, task, batch)  # type: ignore[no-any-return]


def _scorers() -> Any:
    """What runs models; it needs torch."""
    return import_module("ohmformer.tasks.metrics")


class _Metrics(Mapping[str, Metric]):
    """Name in results and studies -> the metric; those of other packages too."""

    def __getitem__(self, name: str) -> Metric:
        found: Metric = named(Metric, name, "metric")()
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and known(Metric, name)

    def __iter__(self) -> Iterator[str]:
        return iter(Metric.kinds())

    def __len__(self) -> int:
        return len(Metric.kinds())


METRICS: Mapping[str, Metric] = _Metrics()
"""Name in results and studies -> the metric."""


def _metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"must be a metric; {suggest(name, list(METRICS))}")
    return name


MetricName = Annotated[
    str, AfterValidator(_metric), Field(json_schema_extra=lambda schema: schema.update(enum=list(METRICS)))
]


def goes_with(metric: str | None, source: str, own: tuple[str, ...]) -> bool:
    """True if a task of this source may have the metric: none in particular, one of its `own`, or one that says so."""
    return metric in (None, *own) or source in METRICS[str(metric)].sources
