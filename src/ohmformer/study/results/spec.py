"""Types of the results of a study, in the store and in results files. Free of torch.

A result is parsed into these types once, when it is read from the store or from a file, and written from them once.
All classes are frozen; `model_dump(by_alias=True)` gives the JSON values of a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from ohmformer.array.spec import Level
from ohmformer.mitigation.spec import Clip, Conditioning, KVClip, WeightMitigation
from ohmformer.streams.backends import Kernels
from ohmformer.study.results.candidates import ComparisonResult
from ohmformer.study.results.costs import CostResult, ServedResult
from ohmformer.study.results.part import Count, Finite, Number, Numbers, Part, Text, is_number, metric_named
from ohmformer.study.results.record import Record
from ohmformer.study.results.requirements import Requirements
from ohmformer.study.results.search import SearchResults
from ohmformer.study.results.trials import ChipYield, Narrowed
from ohmformer.tasks.metric_kinds import Metric, MetricName

OperandClip = Literal["none", "model"] | KVClip | tuple[Clip, ...]
"""The clip of an operand, or those of its heads; `model` is the clip of the whole model."""


class ChosenWeights(Part):
    """The choice of calibration for static weights at one point.

    Attributes:
        recipe: name of the recipe.
        losses: recipe -> difference of the model's outputs from those of the original, with K and V exact.
        weights: operand -> its mitigation.
    """

    recipe: Text
    losses: dict[Text, Number] = Field(default_factory=dict)
    weights: dict[Text, WeightMitigation] = Field(default_factory=dict)


class Chosen(Part):
    """The choice of calibration at one point.

    Attributes:
        recipe: name of the recipe for K and V.
        losses: recipe -> difference of the model's outputs from those of the original.
        clips: operand -> its clip, or those of its heads: 'none', 'model' or alpha and beta.
        kv: operand -> its conditioning.
        comparison: all candidates that were compared for the budget, with their costs; None without a budget.
        weights: choice for static weights; None if they were left alone.
    """

    omitted_at_default = frozenset({"comparison", "weights"})

    recipe: Text
    losses: dict[Text, Number] = Field(default_factory=dict)
    clips: dict[Text, OperandClip] = Field(default_factory=dict)
    kv: dict[Text, Conditioning] = Field(default_factory=dict)
    comparison: ComparisonResult | None = None
    weights: ChosenWeights | None = None

    @property
    def words(self) -> str:
        """The recipes for readers, such as 'hadamard' or 'hadamard, weights: residual'."""
        if self.weights is None:
            return self.recipe
        of_kv = [self.recipe] if self.losses else []
        return ", ".join([*of_kv, f"weights: {self.weights.recipe}"])


class Accuracy(Part):
    """The measured accuracy of one point.

    Attributes:
        metric: name of the metric, as in `ohmformer.tasks.metric_kinds.METRICS`.
        level: fidelity of the simulated hardware.
        kernels: what computed on the CPU.
        software: the metric of the model without crossbars.
        mean: mean of the metric over chips.
        ci95: lower and upper bound of the 95 % interval of the mean.
        chips: the metric of each chip.
        samples: number of scored samples.
        score_sums: for each sample, the sum over chips of its scores (for an accuracy, the number of chips on which
            the sample was right; for a mean of cosines, their sum). The key in JSON is `hits`. The store holds it;
            results files leave it out. None for a metric that only all samples together have.
        left_out: for such a metric, the mean over chips of its value without each part of the samples in turn.
            Paired intervals need it.
        chosen: choice of calibration; None if nothing was calibrated.
        digital_token_share: share of the tokens of K and V that no cell held, as the mean over scored calls; None if
            no K and V have digital tokens. The key in JSON is `digital_tokens`.
        narrowed: whether the interval is as narrow as asked; None for a fixed number of trials.
        chip_yield: share of good chips; None if the study has no bound. The key in JSON is `yield`.
    """

    omitted_at_default = frozenset(
        {"kernels", "score_sums", "left_out", "chosen", "digital_token_share", "narrowed", "chip_yield"}
    )

    metric: MetricName
    level: Level
    kernels: Kernels = "torch"
    software: Finite
    mean: Finite
    ci95: tuple[Finite, Finite]
    chips: Annotated[tuple[Finite, ...], Field(min_length=1)]
    samples: Annotated[Count, Field(ge=1)]
    score_sums: Numbers | None = Field(default=None, alias="hits")
    left_out: tuple[Finite, ...] | None = None
    chosen: Chosen | None = None
    digital_token_share: Annotated[Number, Field(ge=0, le=1)] | None = Field(default=None, alias="digital_tokens")
    narrowed: Narrowed | None = None
    chip_yield: ChipYield | None = Field(default=None, alias="yield")

    @property
    def shown(self) -> Metric:
        """The metric: its title, its unit, and how its values are shown."""
        return metric_named(self.metric)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """The values are possible for the metric, and for one another."""
        if self.shown.counts == "hit":
            if not all(0 <= value <= 1 for value in (self.software, self.mean, *self.ci95, *self.chips)):
                raise ValueError("a share lies between 0 and 1")
            if self.score_sums and not 0 <= min(self.score_sums) <= max(self.score_sums) <= len(self.chips):
                raise ValueError("hits of a sample are at most as many as chips")
        if self.ci95[0] > self.ci95[1]:
            raise ValueError("an interval has its lower bound first")
        if self.score_sums is not None and len(self.score_sums) != self.samples:
            raise ValueError("hits has one number for each sample")
        return self


class Capture(Part):
    """Kinds and numbers of products on crossbars, and names of products that stayed digital."""

    crossbars: dict[Text, Count]
    digital: tuple[Text, ...]


class CellNoise(Part):
    """Write noise of the cells of one role: its kind, its parameters, and how writes are verified.

    Other kinds than `sqrt_range` have parameters of their own, which are kept as they are; in those of other packages
    gamma and sigma may mean anything.
    """

    model_config = ConfigDict(extra="allow")
    omitted_at_default = frozenset({"gamma", "sigma"})

    kind: Text
    gamma: Any = None
    sigma: Any = None

    @property
    def verified(self) -> bool:
        """True if writes are verified."""
        return "write_verify" in (self.model_extra or {})

    @property
    def gamma_sigma(self) -> float | None:
        """The product that `sqrt_range` noise depends on; None for other kinds."""
        return float(self.gamma * self.sigma) if self.kind == "sqrt_range" else None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sqrt_range" and not (is_number(self.gamma) and is_number(self.sigma)):
            raise ValueError("sqrt_range has gamma and sigma, which are numbers")
        return self


class RoleNoise(Part):
    """Write noise by role; None for a digital engine."""

    projection: CellNoise | None
    key: CellNoise | None
    value: CellNoise | None

    @property
    def by_role(self) -> dict[str, CellNoise | None]:
        """Role -> write noise."""
        return {"projection": self.projection, "key": self.key, "value": self.value}


class OldCode(Part):
    """The code that computed a result, where that is not the present code and the user kept it.

    Attributes:
        code: the first digits of the digest of our own code.
        versions: package -> version.
    """

    code: Text
    versions: dict[Text, Text]


class PointResult(Part):
    """The answer of the accuracy half for one point, as it is stored.

    Attributes:
        accuracy: the metric, with its interval.
        capture: which products ran on crossbars.
        write_noise: write noise of the cells of each role.
        notes: sentences on task and model.
        old_code: the code that computed it; None for the present code. It is not stored.
    """

    omitted_at_default = frozenset({"old_code"})

    accuracy: Accuracy
    capture: Capture
    write_noise: RoleNoise
    notes: tuple[Text, ...] = ()
    old_code: OldCode | None = None


class SweptPoint(Part):
    """What was set at a point of a study.

    Attributes:
        set: dotted path -> swept value, as written in the study.
        label: label of the sweep; empty for none.
    """

    omitted_at_default = frozenset({"label"})

    set: dict[Text, Any]
    label: Text = ""


class MeasuredPoint(PointResult, SweptPoint):
    """A point of a study of accuracy.

    Attributes:
        set: dotted path -> swept value, as written in the study.
        label: label of the sweep; empty for none.
        accuracy, capture, write_noise, notes, old_code: as in `PointResult`.
        cost: cost of the point, by the present code; None if it has no price, or costs were not requested.
    """

    omitted_at_default = PointResult.omitted_at_default | SweptPoint.omitted_at_default | {"cost"}

    cost: CostResult | None = None


class PricedPoint(SweptPoint):
    """A point of a study of cost.

    Attributes:
        set: dotted path -> swept value, as written in the study.
        label: label of the sweep; empty for none.
        cost: what the point costs.
        accuracy: measured accuracy; None if only costs were requested.
    """

    omitted_at_default = SweptPoint.omitted_at_default | {"accuracy"}

    cost: CostResult
    accuracy: Accuracy | None = None


class StudyCosts(Part):
    """The document of `cost` and `compare`, and of `run` if no accuracy can be measured.

    Attributes:
        version: version of the format; the key in JSON is `schema`.
        study: name of the study.
        key: hash of all settings.
        versions: package -> version.
        points: the points, in the order of the study.
        notes: sentences that a reader must know.
        record: what a reader needs to check the results and to repeat them; None in older files.
    """

    omitted_at_default = frozenset({"record"})

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    points: tuple[PricedPoint, ...]
    notes: tuple[Text, ...] = ()
    record: Record | None = None


class ServedPoint(SweptPoint):
    """A point of a study whose model serves requests.

    Attributes:
        set: dotted path -> swept value, as written in the study.
        label: label of the sweep; empty for none.
        cost: what its requests take.
    """

    cost: ServedResult


class StudyServed(Part):
    """The document of `serve`.

    Attributes:
        version: version of the format; the key in JSON is `schema`.
        study: name of the study.
        key: hash of all settings.
        versions: package -> version.
        points: the points, in the order of the study.
        notes: sentences that a reader must know.
        record: what a reader needs to check the results and to repeat them; None in older files.
    """

    omitted_at_default = frozenset({"record"})

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    points: tuple[ServedPoint, ...]
    notes: tuple[Text, ...] = ()
    record: Record | None = None


class StudyResults(Part):
    """The document of `run`, `accuracy` and `demo`.

    Attributes:
        version: version of the format; the key in JSON is `schema`.
        study: name of the study.
        key: hash of the keys of all points.
        versions: package -> version.
        notes: sentences on the hardware.
        points: the points, in the order of the study.
        cost_notes: sentences on the costs; None if costs were not requested.
        comparisons: the same or other models on several accelerators.
        record: what a reader needs to check the results and to repeat them; None in older files.
    """

    omitted_at_default = frozenset({"cost_notes", "comparisons", "record"})

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    notes: tuple[Text, ...] = ()
    points: tuple[MeasuredPoint, ...]
    cost_notes: tuple[Text, ...] | None = None
    comparisons: tuple[StudyCosts, ...] = ()
    record: Record | None = None


class ClaimResult(Part):
    """One number of a paper, what the model gives, and whether they agree.

    Attributes:
        where: place in the paper.
        role: role of the claim; see `ohmformer.validation.claims`.
        ratio: modeled over reported; None without one of them.
    """

    id: Text
    claim: Text
    where: Text
    role: Text
    reported: Number | None
    modeled: Number | None
    unit: Text
    ratio: Number | None
    tolerance: Number
    verdict: Text
    why: Text


class PaperResult(Part):
    """The claims of one paper."""

    paper: Text
    claims: tuple[ClaimResult, ...]


class ClaimResults(Part):
    """The document of `validate`."""

    version: Literal[1] = Field(alias="schema")
    papers: tuple[PaperResult, ...]


Document = StudyResults | StudyCosts | StudyServed | ClaimResults | Requirements | SearchResults
"""Every document that a verb writes."""

DOCUMENTS: TypeAdapter[Document] = TypeAdapter(Document)


def results_schema() -> dict[str, Any]:
    """The JSON Schema of these documents."""
    return {"title": "Ohmformer results", **DOCUMENTS.json_schema()}
