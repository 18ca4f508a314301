"""Types of the answer to `search`: the designs that were tried, and those on the Pareto front. Free of torch.

All classes are frozen; `model_dump(by_alias=True)` gives the JSON values of a file.
"""

from __future__ import annotations

from math import inf
from typing import Any, Literal

from pydantic import Field

from ohmformer.array.spec import Level
from ohmformer.streams.backends import Kernels
from ohmformer.study.results.part import Count, Finite, Number, Part, Text
from ohmformer.tasks.metric_kinds import MetricName

State = Literal["front", "dominated", "infeasible", "skipped", "impossible"]
"""`front`: no other design is better. `dominated`: another one is. `infeasible`: it violates a constraint. `skipped`:
its accuracy was not measured, since it could not matter. `impossible`: it has no price or no valid settings."""


class SearchedQuantity(Part):
    """An objective, or what a constraint bounds.

    Attributes:
        name: its name in files.
        title: its name in words.
        unit: unit of its values; `%` for shares.
        better: whether lower or higher values are better.
    """

    name: Text
    title: Text
    unit: Text
    better: Literal["lower", "higher"]


class MeasuredDesign(Part):
    """The measured accuracy of a design.

    Attributes:
        metric: name of the metric.
        level: fidelity of the simulated hardware.
        kernels: what computed on the CPU.
        software: the metric of the model without crossbars.
        mean: mean over chips. A search counts it as at best that of the software model.
        ci95: 95 % interval of the mean.
        chips: number of chips.
        samples: number of scored samples.
    """

    omitted_at_default = frozenset({"kernels"})

    metric: MetricName
    level: Level
    kernels: Kernels = "torch"
    software: Finite
    mean: Finite
    ci95: tuple[Finite, Finite]
    chips: Count
    samples: Count


class SearchedDesign(Part):
    """One design.

    Attributes:
        number: its number, from 1, in the order of the search.
        choices: name of a choice -> its value.
        set: dotted path -> what the design sets there.
        state: what became of it.
        values: quantity -> value in SI units; None if it is unlimited. A skipped design has
            those of its best case.
        accuracy: what was measured; None if nothing was.
        why: why it was skipped, is infeasible or impossible, or which design dominates it.
    """

    omitted_at_default = frozenset({"accuracy", "why"})

    number: Count
    choices: dict[Text, Any]
    set: dict[Text, Any]
    state: State
    values: dict[Text, Number | None]
    accuracy: MeasuredDesign | None = None
    why: Text = ""


class SearchResults(Part):
    """The document of `search`.

    Attributes:
        version: version of the format; the key in JSON is `schema`.
        study: name of the study.
        key: hash of all that decides the proposals and their values, but for the number of trials.
        versions: package -> version.
        objectives: what was made as good as possible.
        constraints: what had to hold, as written.
        quantities: all quantities of objectives and constraints.
        sampler: how designs were proposed.
        seed: of the proposals.
        batch: designs of a batch.
        size: number of all designs; None if it is infinite, or too large to count.
        measured: number of designs whose accuracy was measured.
        designs: all designs, in the order of the search.
        notes: sentences that a reader must know.
    """

    version: Literal[1] = Field(alias="schema")
    study: Text
    key: Text
    versions: dict[Text, Text]
    objectives: tuple[SearchedQuantity, ...]
    constraints: tuple[Text, ...]
    quantities: tuple[SearchedQuantity, ...]
    sampler: Text
    seed: Count
    batch: Count
    size: Count | None
    measured: Count
    designs: tuple[SearchedDesign, ...]
    notes: tuple[Text, ...] = ()

    @property
    def front(self) -> tuple[SearchedDesign, ...]:
        """The designs on the Pareto front, the best of the first objective first."""
        sign = 1 if self.objectives[0].better == "lower" else -1

        def place(design: SearchedDesign) -> float:
            value = design.values[self.objectives[0].name]
            return sign * (inf if value is None else value)

        return tuple(sorted((each for each in self.designs if each.state == "front"), key=place))
