"""The family of metrics: what a model can be scored by on a task. Free of torch until a model is scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from ohmformer.errors import BadInput, given, shown, suggest
from ohmformer.registry import Family, called, known, named, register

if TYPE_CHECKING:
    from torch import nn

    from ohmformer.stats.intervals import Floats, Summary


Better = Literal["higher", "lower"]
Counts = Literal["hit", "mean", "whole"]
LabelKind = Literal["classes", "tokens", "numbers", "none"]

_FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]

_CLASS_VARIABLES: dict[str, tuple[Any, str]] = {
    "title": (str, "the name of the metric in words"),
    "factor": (Annotated[_FiniteFloat, Field(gt=0)], "a number above 0"),
    "unit": (str, "text, such as '%'"),
    "digits": (Annotated[int, Field(ge=0, le=20)], "a number of digits from 0 to 20"),
    "better": (Better, "'higher' or 'lower'"),
    "counts": (Counts, "'hit', 'mean' or 'whole'"),
    "limits": (tuple[_FiniteFloat, _FiniteFloat] | None, "a pair of numbers, or None"),
    "sources": (tuple[str, ...], "a tuple of prefixes, such as ('imagefolder', 'csv')"),
    "labels": (LabelKind, "'classes', 'tokens', 'numbers' or 'none'"),
    "compares_features": (bool, "True or False"),
}
"""Name of a class variable -> its type, and how to correct it."""


class Metric(Family):
    """Base class of metrics: the score of each sample, the value of all scores together, and how it is displayed.

    Methods take the `ohmformer.Task` that is scored. Their signatures do not name its type, since a task refers to its
    metric and the two files would import each other.

    Attributes:
        title: name of the metric in words, as on the axis of a plot.
        factor: factor from a stored value to the displayed one, such as 100 for percent.
        unit: unit of a displayed value; empty for plain numbers.
        digits: digits after the decimal point of a displayed value.
        better: whether `higher` or `lower` values are better.
        counts: kind of the scores: `hit` (0 or 1 per sample), `mean` (numbers that are averaged over samples), or
            `whole` (only all samples together have a value).
        limits: lowest and highest displayed value; None if the metric is unbounded.
        sources: prefixes of task sources that this metric may be chosen for. Bundled tasks and tasks from a function
            accept every metric.
        labels: kind of the labels that the metric reads: `classes` (the class of each sample), `tokens` (the tokens of
            each window), `numbers` (a finite number for each sample or pair), or `none`.
        compares_features: True if scores compare the features of a sample with `Task.reference`, those of the software
            model.
    """

    family: ClassVar[str] = "metric"
    title: ClassVar[str] = ""
    factor: ClassVar[float] = 1.0
    unit: ClassVar[str] = ""
    digits: ClassVar[int] = 3
    better: ClassVar[Better] = "higher"
    counts: ClassVar[Counts] = "mean"
    limits: ClassVar[tuple[float, float] | None] = None
    sources: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[LabelKind] = "classes"
    compares_features: ClassVar[bool] = False

    kind: str

    @abstractmethod
    def scores(self, model: nn.Module, task: Any, batch: int) -> Floats:
        """Score the test samples one by one.

        Args:
            model: a model in evaluation mode.
            task: the `ohmformer.Task` to score on.
            batch: samples per call; `ohmformer.tasks.model_outputs.run_batches` calls the model batch by batch.

        Returns:
            One finite float64 score per sample (or pair, or window) [N].
        """

    def summarize(self, scores: Floats, task: Any) -> Summary:
        """Summarize the scores of several chips as one value with a 95 % interval; by default the mean.

        Args:
            scores: [C, N], scores of N samples on C chips.
            task: the `ohmformer.Task` that the scores belong to.
        """
        from ohmformer.stats.intervals import mean_summary

        return mean_summary(scores)

    def show(self, value: float, sign: str = "") -> str:
        """Format a stored value for display, without its unit; pass sign='+' for differences."""
        return f"{self.factor * value:{sign}.{self.digits}f}"

    def text(self, value: float, sign: str = "") -> str:
        """What `show` returns, checked.

        Raises:
            BadInput: `show` of a metric of another package raises an exception, or returns something else than text.
        """
        text = called(self, "show", value, sign)
        if not isinstance(text, str):
            raise BadInput(f"{type(self).__name__}.show: returns {given(text)}; return the value as text")
        return text

    @classmethod
    def check_class(cls) -> None:
        """Refuse a metric without a title, with a class variable of another type, or with required fields."""
        if not cls.title:
            raise BadInput(f"register({cls.__name__}): has no title; set `title` to the name of the metric in words")
        for name, (annotation, remedy) in _CLASS_VARIABLES.items():
            try:
                TypeAdapter(annotation).validate_python(getattr(cls, name), strict=True)
            except ValidationError:
                value = shown(getattr(cls, name))
                raise BadInput(f"register({cls.__name__}): {name} = {value}; give {remedy}") from None
        if cls.limits is not None and cls.limits[0] >= cls.limits[1]:
            raise BadInput(f"register({cls.__name__}): limits = {shown(cls.limits)}; give the lowest value first")
        if required := next((name for name, field in cls.model_fields.items() if field.is_required()), None):
            raise BadInput(
                f"register({cls.__name__}): {required} has no default; a metric is chosen by its name alone, so give "
                "every field one"
            )


@register
class Top1(Metric):
    """Share of samples whose largest logit is at the label."""

    title = "accuracy"
    factor = 100.0
    unit = "%"
    digits = 1
    counts = "hit"
    limits = (0.0, 100.0)
    k: ClassVar[int] = 1

    kind: Literal["top1"] = "top1"

    def scores(self, model: nn.Module, task: Any, batch: int) -> Floats:
        """Return 1 for each sample whose label is among its k largest logits, else 0 [N]."""
        from ohmformer.tasks.sample_scores import top_k_hits

        return top_k_hits(model, task.inputs, task.labels, self.k, batch, task.name)


@register
class Top5(Top1):
    """Share of samples whose label is among the five largest logits."""

    title = "top-5 accuracy"
    k = 5

    kind: Literal["top5"] = "top5"  # type: ignore[assignment]


@register
class TextAccuracy(Top1):
    """Share of texts whose largest logit is at the label: `top1`, by its usual name for texts."""

    kind: Literal["accuracy"] = "accuracy"  # type: ignore[assignment]


@register
class Pearson(Metric):
    """Pearson correlation between the cosine similarities of pairs and the similarities that people reported."""

    title = "Pearson correlation"
    counts = "whole"
    labels = "numbers"

    kind: Literal["pearson"] = "pearson"

    def scores(self, model: nn.Module, task: Any, batch: int) -> Floats:
        """Return the cosine similarity of the two samples of each pair [P]."""
        from ohmformer.tasks.sample_scores import pair_similarities

        if task.pairs is None:
            raise BadInput(
                f"{task.name}: metric = {shown(task.metric)} needs pairs of samples; give the task its pairs"
            )
        return pair_similarities(model, task.inputs, task.pairs, task.reading, batch, task.name)

    def summarize(self, scores: Floats, task: Any) -> Summary:
        """Return the mean correlation of the chips, with its 95 % interval."""
        from ohmformer.tasks.sample_scores import summarize_correlation

        return summarize_correlation(scores, task.labels, task.pairs, self.kind)


@register
class Spearman(Pearson):
    """Spearman rank correlation between the cosine similarities of pairs and those that people reported."""

    title = "Spearman correlation"

    kind: Literal["spearman"] = "spearman"  # type: ignore[assignment]


@register
class Perplexity(Metric):
    """exp of the mean negative log-likelihood per token."""

    title = "perplexity"
    digits = 2
    better = "lower"
    counts = "whole"
    labels = "tokens"

    kind: Literal["perplexity"] = "perplexity"

    def scores(self, model: nn.Module, task: Any, batch: int) -> Floats:
        """Return the mean negative log-likelihood of the scored tokens of each window [N]."""
        from ohmformer.tasks.sample_scores import window_losses

        return window_losses(model, task.inputs, task.labels, task.reading, batch, task.name)

    def summarize(self, scores: Floats, task: Any) -> Summary:
        """Return the perplexity over all tokens, with its 95 % interval."""
        from ohmformer.tasks.sample_scores import summarize_perplexity

        return summarize_perplexity(scores, task.labels)


@register
class Fidelity(Metric):
    """Cosine similarity between a sample's features and those of the software model."""

    title = "cosine with the software model"
    digits = 4
    labels = "none"
    compares_features = True

    kind: Literal["fidelity"] = "fidelity"

    def scores(self, model: nn.Module, task: Any, batch: int) -> Floats:
        """Return the cosine similarity of each sample's features with the reference [N]."""
        from ohmformer.tasks.sample_scores import reference_similarities

        return reference_similarities(model, task.inputs, task.reference, task.reading, batch, task.name)


class _Metrics(Mapping[str, Metric]):
    """Kind -> metric, for all registered metrics, those of other packages included."""

    def __getitem__(self, name: str) -> Metric:
        metric: Metric = named(Metric, name, "metric")()
        return metric

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and known(Metric, name)

    def __iter__(self) -> Iterator[str]:
        return iter(Metric.kinds())

    def __len__(self) -> int:
        return len(Metric.kinds())


METRICS: Mapping[str, Metric] = _Metrics()
"""Name of a metric in studies and results -> the metric. A read-only view of the registry."""


def _check_name(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"must be a metric; {suggest(name, list(METRICS))}")
    return name


MetricName = Annotated[
    str, AfterValidator(_check_name), Field(json_schema_extra=lambda schema: schema.update(enum=list(METRICS)))
]


def is_allowed(metric: str | None, source: str, own: tuple[str, ...]) -> bool:
    """True if tasks of a source accept a metric.

    Args:
        metric: name of the metric; None stands for the default one, which is always accepted.
        source: prefix of the task's source, such as `csv`.
        own: metrics of the package that fit the source; other metrics name their sources themselves.
    """
    return metric in (None, *own) or source in METRICS[str(metric)].sources


def compares_features(metric: str | None) -> bool:
    """True if a metric compares features with those of the software model; None stands for the default metric."""
    return metric is not None and METRICS[metric].compares_features


def label_kind(metric: str | None) -> LabelKind:
    """The kind of the labels that a metric reads; None stands for the default metric of samples with classes."""
    return "classes" if metric is None else METRICS[metric].labels
