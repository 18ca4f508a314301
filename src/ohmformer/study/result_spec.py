"""What results files hold: the types of every document that a verb writes as JSON. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError, model_validator

from ohmformer.errors import BadInput
from ohmformer.tasks.metric_kinds import METRICS, MetricName

Finite = Annotated[float, Field(allow_inf_nan=False), Strict()]
Count = Annotated[int, Field(ge=0), Strict()]
Text = Annotated[str, Strict()]


class _Part(BaseModel):
    """A table of a document: immutable, with no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Accuracy(_Part):
    """What was measured at one point.

    Attributes:
        metric: which, as in `ohmformer.tasks.metric_kinds.METRICS`.
        level: how faithfully the hardware was simulated.
        software: the metric of the model without crossbars.
        mean: over chips.
        ci95: bounds of its 95 % interval.
        chips: the metric of each chip.
        samples: that were scored.
        hits: for each sample, the sum over chips of its scores (for accuracies, on how many chips it was right); it is
            kept in the store and left out of files.
        chosen: the recipe, clips and conditionings that calibration chose.
    """

    metric: MetricName
    level: Literal["cell", "array", "noise"]
    software: Finite
    mean: Finite
    ci95: tuple[Finite, Finite]
    chips: Annotated[tuple[Finite, ...], Field(min_length=1)]
    samples: Annotated[Count, Field(ge=1)]
    hits: tuple[Finite, ...] | None = None
    left_out: tuple[Finite, ...] | None = None
    chosen: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """The values are possible for the metric, and for one another."""
        values = (self.software, self.mean, *self.chips)
        if METRICS[self.metric].counts == "hit":
            if not all(0 <= value <= 1 for value in values):
                raise ValueError("a share lies between 0 and 1")
            if self.hits is not None and not all(0 <= hits <= len(self.chips) for hits in self.hits):
                raise ValueError("hits of a sample are at most as many as chips")
        if self.ci95[0] > self.ci95[1]:
            raise ValueError("an interval has its lower bound first")
        return self


class Capture(_Part):
    """What ran on crossbars, as kinds of products and how many of each there are, and what stayed digital."""

    crossbars: dict[Text, Count]
    digital: tuple[Text, ...]


class CellNoise(_Part):
    """Write noise of the cells of one role: its kind, its numbers, and how writes are verified."""

    model_config = ConfigDict(extra="allow")
    kind: Text
    gamma: Finite | None = None
    sigma: Finite | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "sqrt_range" and (self.gamma is None or self.sigma is None):
            raise ValueError("sqrt_range has gamma and sigma")
        return self


class RoleNoise(_Part):
    """Write noise by role; null for a digital engine."""

    projection: CellNoise | None
    key: CellNoise | None
    value: CellNoise | None


class PointResult(_Part):
    """The answer of the accuracy half for one point, as it is stored."""

    accuracy: Accuracy
    capture: Capture
    write_noise: RoleNoise
    notes: tuple[Text, ...] = ()


class EnergyBy(_Part):
    """Energy by component, operation and engine [J]."""

    component: dict[Text, Finite]
    operation: dict[Text, Finite]
    engine: dict[Text, Finite]


class CostResult(_Part):
    """What one point costs, in SI units; null where something is not known or has no end."""

    model_config = ConfigDict(extra="allow")
    latency_s: Finite
    energy_J: Finite
    power_W: Finite
    area_m2: Finite
    throughput_per_s: Finite
    efficiency_op_per_J: Finite
    lifetime_s: Finite | None
    lifetime: dict[Text, Any] | None
    utilization: dict[Text, Finite]
    energy_by: EnergyBy
    critical_path_s: dict[Text, Finite]
    buffer_B: dict[Text, Finite]
    counts: dict[Text, Finite]


class PointEntry(_Part):
    """A point of a study: what was set, and what each half says."""

    set: dict[Text, Any]
    label: Text = ""
    accuracy: Accuracy | None = None
    capture: Capture | None = None
    write_noise: RoleNoise | None = None
    notes: tuple[Text, ...] = ()
    cost: CostResult | None = None


class StudyResults(_Part):
    """What `run`, `accuracy`, `cost`, `compare` and `demo` write."""

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    points: tuple[PointEntry, ...]
    notes: tuple[Text, ...] = ()
    cost_notes: tuple[Text, ...] = ()
    comparisons: tuple[StudyResults, ...] = ()


class ClaimResult(_Part):
    """One number of a paper, what the model gives, and whether they agree."""

    id: Text
    claim: Text
    where: Text
    role: Text
    reported: Finite | None
    modelled: Finite | None
    unit: Text
    ratio: Finite | None
    tolerance: Finite
    verdict: Text
    why: Text


class PaperResult(_Part):
    """The claims of one paper."""

    paper: Text
    claims: tuple[ClaimResult, ...]


class ClaimResults(_Part):
    """What `validate` writes."""

    version: Literal[1] = Field(alias="schema")
    papers: tuple[PaperResult, ...]


DOCUMENTS: TypeAdapter[StudyResults | ClaimResults] = TypeAdapter(StudyResults | ClaimResults)
"""Every document that a verb writes."""


def results_schema() -> dict[str, Any]:
    """The JSON Schema of these documents."""
    return {"title": "Ohmformer results", **DOCUMENTS.json_schema()}


def check_result(key: str, result: Any) -> None:
    """Refuse a stored result that no evaluation gives.

    Raises:
        BadInput: one line with the key and what is wrong.
    """
    try:
        PointResult.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"the result {key[:12]} is damaged ({place}: {first['msg']}); compute it again with --fresh"
        ) from None
