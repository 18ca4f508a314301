"""A study: settings that decide a result, and the points that its sweep makes of them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from ohmformer.array.spec import Level
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.errors import BadInput, closest, fault_of
from ohmformer.hardware.assignment import KVRole, assign_kv, assign_weight
from ohmformer.hardware.rules import Rule, RulesField
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mitigation.budget import LIMITED, KVBudget
from ohmformer.mitigation.spec import Conditioning, KVClip, WeightMitigation
from ohmformer.models.spec import ModelChoice
from ohmformer.quantities import Fraction, Hertz, MetricValue, Seconds, Seed, WholeNumber
from ohmformer.schema import Spec, validate
from ohmformer.streams.backends import Kernels
from ohmformer.tasks.spec import TaskChoice
from ohmformer.workload.spec import Phase

S = TypeVar("S", bound=Spec)


KV_ROLES: tuple[KVRole, ...] = get_args(KVRole)


class Mitigation(Spec):
    """`[mitigation]`: measures against the effects of noise.

    Attributes:
        clip: ClipFormer's clip of K and V: fixed, or `calibrated` by layer and head on calibration data.
        kv: conditioning of K and V; `auto` chooses the best of the known recipes, clips included; a budget such as
            `{ auto = true, latency = "+10 %" }` chooses among more of them, by what they cost.
        weights: mitigation of static weights; `auto` chooses one for each layer.
    """

    clip: Literal["none", "calibrated"] | KVClip = "none"
    kv: Literal["none", "auto"] | Conditioning | KVBudget = "none"
    weights: Literal["auto"] | WeightMitigation = WeightMitigation()

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return _fixed(KVClip, value)
        if not isinstance(value, KVClip) and value not in ("none", "calibrated"):
            raise ValueError("is not a clip; write 'none', 'calibrated' or { alpha = 2.0, beta = 0.25 }")
        return value

    @field_validator("kv", mode="before")
    @classmethod
    def _kv(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return _fixed(KVBudget if _is_budget(value) else Conditioning, value)
        if not isinstance(value, (Conditioning, KVBudget)) and value not in ("none", "auto"):
            raise ValueError(
                "is not a conditioning; write 'none', 'auto' or { mean = true, basis = \"hadamard\" }, or a budget "
                'such as { auto = true, latency = "+10 %" }'
            )
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if value == "none":
            return WeightMitigation()
        if isinstance(value, dict):
            return _fixed(WeightMitigation, value)
        if not isinstance(value, WeightMitigation) and value != "auto":
            raise ValueError("is not a mitigation of weights; write 'none', 'auto' or { residual = {}, radix = 2 }")
        return value

    @property
    def fixed_weights(self) -> WeightMitigation:
        """The mitigation of static weights before calibration chooses one."""
        return WeightMitigation() if self.weights == "auto" else self.weights

    @model_validator(mode="after")
    def _one_chooser(self) -> Mitigation:
        if self.chooses_kv and self.clip != "none":
            raise ValueError("kv = 'auto' chooses clips too; write clip = 'none'")
        if self.kv != "none" and self.clip == "calibrated":
            raise ValueError(
                "clip = 'calibrated' needs K and V without conditioning; write kv = 'none', or kv = 'auto' alone"
            )
        return self

    @property
    def chooses_kv(self) -> bool:
        """True if calibration chooses the conditioning of K and V."""
        return self.kv == "auto" or isinstance(self.kv, KVBudget)


def _is_budget(table: dict[str, Any]) -> bool:
    """True if a table is a budget, not a conditioning.

    Raises:
        ValueError: it has limits, but does not say that it is a budget.
    """
    if "auto" in table:
        return True
    if limit := next((name for name in LIMITED if name in table), ""):
        raise ValueError(f"has the limit {limit!r} of a budget; write auto = true beside it")
    return False


def _fixed(cls: type[S], table: dict[str, Any]) -> S:
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        raise fault_of(error, cls, table) from None


TIMELINES = ("timeline", "timeline_longest")
"""Values of `simulation.age` that take ages from the cost half of the study."""
Age = Annotated[Seconds, Field(ge=0)]


class Simulation(Spec):
    """`[simulation]`: level of fidelity (see the documentation), what computes, number of samples in a batch, age of K
    and V, and hours of use.

    Attributes:
        level: how closely arrays are simulated.
        kernels: what computes on the CPU: operations of PyTorch, or loops that numba compiles, which draw other noise
            of the same distribution.
        batch: number of samples of a call.
        age: "timeline" if each token of K and V has the age that the cost half of the study gives it when a query reads
            it; "timeline_longest" likewise, with the longest age of a token that all queries read, not the mean; a
            time for all tokens; None for the `age` of the arrays.
        hours: time for which the machine has been in use [h]. It is the age of weights, and with the rate of `[cost]`
            it gives the writes of cells of K and V that wear.
    """

    level: Level = "array"
    kernels: Kernels = "torch"
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    age: Literal["timeline", "timeline_longest"] | Age | None = None
    hours: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] = 0.0

    @field_validator("age", mode="wrap")
    @classmethod
    def _age(cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if value is None or (isinstance(value, str) and value in TIMELINES):
            return value
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(
                "is no time; write one with its unit, such as '10 us', or 'timeline' or 'timeline_longest'"
            )
        try:
            return _TIME.validate_python(value, context=info.context)
        except ValidationError as error:
            near = closest(value, list(TIMELINES)) if isinstance(value, str) else ""
            remedy = f"did you mean {near!r}?" if near else "or write 'timeline' or 'timeline_longest'"
            raise ValueError(f"{fault_of(error, Age, value).reason}; {remedy}") from None

    @property
    def on_timeline(self) -> bool:
        """True if ages come from the cost half of the study."""
        return self.age in TIMELINES


_TIME: TypeAdapter[float] = TypeAdapter(Age)


CHIPS = 1_000_000
"""Maximum number of chips."""
FEWEST_CHIPS = 8
"""Chips of the first look, if chips are added: of fewer, intervals are narrow by chance too often."""
Chips = Annotated[int, Field(ge=1, le=CHIPS)]


class Trials(Spec):
    """`[trials]`: number of simulated chips, each with its own noise, and what counts as a good chip.

    Attributes:
        chips: number of chips; with `ci_halfwidth`, the least number.
        ci_halfwidth: half the width of the 95 % interval of the mean, in the unit of the metric (of an accuracy, such
            as "0.5 %"), until which chips and samples are added; None for a fixed number.
        most_chips: with `ci_halfwidth`, the most chips; None for ten times `chips`.
        samples: with `ci_halfwidth`, the number of samples of the first look; more are added, up to all of the task's
            (`task.limit`). None takes all at once.
        yield_above: a chip is good if its value lies above this bound, such as "85 %"; results give the share of good
            chips.
        yield_below: likewise, for a metric of which lower values are better.
    """

    chips: Chips = 10
    ci_halfwidth: Annotated[MetricValue, Field(gt=0)] | None = None
    most_chips: Chips | None = None
    samples: Annotated[int, Field(ge=2, lt=10**9)] | None = None
    yield_above: MetricValue | None = None
    yield_below: MetricValue | None = None

    @model_validator(mode="after")
    def _fits(self) -> Trials:
        if self.ci_halfwidth is None:
            for name in ("most_chips", "samples"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name} = {value} needs ci_halfwidth; add it, or leave {name} out")
        elif self.chips < FEWEST_CHIPS:
            raise ValueError(
                f"chips = {self.chips} is too few for ci_halfwidth, since their spread is uncertain; write "
                f"{FEWEST_CHIPS} or more"
            )
        if self.most < self.chips:
            raise ValueError(f"most_chips = {self.most_chips} is below chips = {self.chips}; raise it, or lower chips")
        if self.yield_above is not None and self.yield_below is not None:
            raise ValueError("yield_above and yield_below exclude each other; leave one of them out")
        return self

    @property
    def most(self) -> int:
        """The most chips that are tried."""
        if self.ci_halfwidth is None:
            return self.chips
        return min(10 * self.chips, CHIPS) if self.most_chips is None else self.most_chips


class CostModel(ModelChoice):
    """`[model]`: `shapes:NAME` for a table of dimensions, or a real model, which is traced.

    Attributes:
        seq_len: number of new tokens of a sample; None for images, and for decoding, where each step makes one token.
        batch: number of samples in one pass.
        phase: `encode`, `prefill` or `decode`.
        context: number of tokens in the cache before the pass.
        steps: number of decoding steps, of one token each; the cache grows by one token with each step.
        generate: generated tokens of each request, for `ohmformer serve`, where `seq_len` is the prompt.
        chunk: tokens of a chunk of chunked prefill in the steady state of requests; None if prefills run alone.
    """

    synonyms: ClassVar[dict[str, str]] = dict.fromkeys(("tokens", "length", "sequence_length"), "seq_len")

    seq_len: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    phase: Phase | None = None
    context: WholeNumber = 0
    steps: Annotated[int, Field(ge=1, le=4_096)] = 1
    generate: Annotated[int, Field(ge=1, le=32_768)] | None = None
    chunk: Annotated[int, Field(ge=1, le=10_000_000)] | None = None


class CostOptions(Spec):
    """`[cost]`: options of the lifetime.

    Attributes:
        rate: passes per second; None for one pass right after another.
        leveling: True if writes are spread evenly over all cells.
        spare: spare arrays as a fraction of the arrays in use.
    """

    renamed: ClassVar[dict[str, str]] = {"levelling": "leveling"}

    rate: Annotated[Hertz, Field(gt=0)] | None = None
    leveling: bool = False
    spare: Fraction = 0.0


class Common(Spec):
    """Settings that both halves read.

    `rules` gives other settings to modules whose names match a pattern; the first match wins.
    """

    model: ModelChoice
    task: TaskChoice | None = None
    hardware: Accelerator
    rules: RulesField = ()
    mitigation: Mitigation = Mitigation()


class CostSettings(Common):
    """All settings of one point of the cost half."""

    model: CostModel
    dataflow: Dataflow = LayerSerial()
    cost: CostOptions = CostOptions()


class Settings(Common):
    """All settings of one point of the accuracy half.

    `timing` has those of the cost half where ages of K and V come from its timeline, `pricing` those where a budget
    for K and V needs prices.
    """

    task: TaskChoice
    seed: Seed = 0
    simulation: Simulation = Simulation()
    trials: Trials = Trials()
    timing: CostSettings | None = None
    pricing: CostSettings | None = None

    @model_validator(mode="after")
    def _compensates_weights_alone(self) -> Settings:
        """Refuse a compensation of drift of K and V before the first point runs."""
        for role in KV_ROLES:
            assign_kv(self.hardware, Rule(), role)
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Settings:
        try:
            assign_weight(self.hardware, Rule(), self.mitigation.fixed_weights)
        except BadInput as error:
            raise BadInput(f"mitigation.{error}" if str(error).startswith("weights") else str(error)) from None
        return self

    @model_validator(mode="after")
    def _clip_fits(self) -> Settings:
        clip = self.mitigation.clip
        for engine in (self.hardware.attention.key, self.hardware.attention.value):
            if isinstance(clip, KVClip) and isinstance(engine, CrossbarEngine):
                try:
                    clip.thresholds(engine.array)
                except BadInput as error:
                    raise BadInput(f"mitigation.{error}") from None
        return self


class Whole(Common):
    """All settings of one point in a study file, for both halves, checked together."""

    seed: Seed = 0
    model: CostModel
    simulation: Simulation = Simulation()
    trials: Trials = Trials()
    dataflow: Dataflow = LayerSerial()
    cost: CostOptions = CostOptions()

    def accuracy(self) -> Settings:
        """The settings of the accuracy half.

        Raises:
            BadInput: there is no task, or the clip does not fit the arrays.
        """
        if self.task is None:
            raise BadInput("task: is missing, so there is no accuracy; add a [task], or run `ohmformer cost`")
        others = ("provenance", "model", "timing", "pricing")
        values = {name: getattr(self, name) for name in Settings.model_fields if name not in others}
        timing = self.costs() if self.simulation.on_timeline else None
        pricing = self.costs() if isinstance(self.mitigation.kv, KVBudget) else None
        halves = {"model": _plain_model(self.model), "timing": timing, "pricing": pricing}
        return validate(Settings, {**values, **halves}, where="")

    def costs(self) -> CostSettings:
        """The settings of the cost half."""
        values = {name: getattr(self, name) for name in CostSettings.model_fields if name != "provenance"}
        return validate(CostSettings, values, where="")


@lru_cache(maxsize=256)
def _plain_model(model: CostModel) -> ModelChoice:
    """The model of the accuracy half, without the fields that only the cost half reads."""
    return ModelChoice(**{name: getattr(model, name) for name in ModelChoice.model_fields if name != "provenance"})


@dataclass(frozen=True)
class Point(Generic[S]):
    """One point of a study: the swept values as written, the label of their sweep, and all settings."""

    set: dict[str, Any]
    label: str
    settings: S


@dataclass(frozen=True)
class Study(Generic[S]):
    """A named list of points, with the settings of one half; `where` names its file in messages."""

    name: str
    points: tuple[Point[S], ...]
    where: str = ""
