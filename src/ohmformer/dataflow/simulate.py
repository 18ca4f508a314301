"""`simulate`: latency, energy, area and lifetime of a workload on an accelerator, in one call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ohmformer.cost.machine.arguments import check_cost_arguments
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import By, check_split
from ohmformer.dataflow.jobs import check_size
from ohmformer.dataflow.lifetime import given_rate, lifetime, real_number
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.run_table import as_html, as_text, run_rows
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.dataflow.timeline import Timeline, build_timeline
from ohmformer.errors import check_type
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.terminal.files import write_text
from ohmformer.workload.spec import Workload


@dataclass(frozen=True, repr=False)
class Run:
    """A workload on an accelerator under a dataflow: the result of `simulate`. It prints as a table, also in notebooks.

    Attributes:
        placement: the priced stages of every layer, arrays, tiles and area.
        timeline: when every job ran.
    """

    placement: Placement
    timeline: Timeline

    def __repr__(self) -> str:
        """Workload, accelerator, latency and energy in one line."""
        shown = dict(run_rows(self.timeline))
        parts = ", ".join(shown[name] for name in ("workload", "accelerator", "latency", "energy"))
        return f"Run({parts})"

    def __str__(self) -> str:
        """Latency, energy, power, area and utilization as lines of text."""
        return as_text(run_rows(self.timeline))

    def _repr_html_(self) -> str:
        """The same as an HTML table, for notebooks."""
        return as_html(run_rows(self.timeline))

    @property
    def latency(self) -> float:
        """Latency of all samples together [s]."""
        return self.timeline.latency

    @property
    def energy(self) -> float:
        """Energy of all samples together [J]."""
        return self.timeline.energy

    @property
    def power(self) -> float:
        """Mean power over the run [W]."""
        return self.timeline.power

    @property
    def area(self) -> float:
        """Area of the chip [m^2]."""
        return self.placement.area

    @property
    def utilization(self) -> dict[str, float]:
        """Engine -> fraction of the latency during which at least one of its units is busy."""
        return self.timeline.utilization

    @property
    def notes(self) -> list[str]:
        """What latency, energy and area leave out: loads of links, prices that hold for another machine."""
        return self.placement.notes

    def energy_by(self, kind: By) -> dict[str, float]:
        """Energy [J], split by component, operation or engine.

        Raises:
            BadInput: `kind` is not one of these.
        """
        check_split(kind)
        return self.timeline.energy_by(kind)

    def lifetime(self, rate: float | str | None = None, *, leveling: bool = False, spare: float = 0.0) -> float | None:
        """Time until the first cells wear out [s].

        Args:
            rate: passes per second, as a number or as text with a unit, such as "20 Hz"; by default passes follow one
                another without a pause.
            leveling: see `dataflow.lifetime.lifetime`.
            spare: see `dataflow.lifetime.lifetime`.

        Returns:
            Seconds, or None if cells are written whose endurance is unknown.

        Raises:
            BadInput: the rate or `spare` is out of range.
        """
        passes_per_second = 1 / self.latency if rate is None else given_rate(rate)
        check_type("lifetime", "leveling", leveling, bool, "True or False")
        spare = real_number("spare", spare, "a fraction, such as 0.1")
        again = self.timeline.refreshes
        first_worn = lifetime(self.placement, passes_per_second, leveling=leveling, spare=spare, refreshes=again)
        return None if first_worn is None else first_worn.seconds

    def save_trace(self, file: str | Path) -> None:
        """Write the timeline as a JSON file that Perfetto and chrome://tracing open.

        Raises:
            BadInput: the file cannot be written.
        """
        check_type("save_trace", "file", file, (str, PathLike), "the path of the file to write")
        write_text(Path(file), json.dumps(self.timeline.chrome_trace()))


def simulate(
    workload: Workload,
    hardware: Accelerator,
    dataflow: Dataflow | None = None,
    *,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
) -> Run:
    """Latency, energy, area and wear of a workload on an accelerator.

    Args:
        workload: from `shapes`, or from `trace` of a real model.
        hardware: an accelerator whose engines and chip have prices.
        dataflow: by default `LayerSerial()`.
        clip: clip of K and V in memristive cells. Slices that it leaves empty take no cells.
        rules: engines, arrays, stored sides and clips of products by name, as in `trace`.
        weights: mitigation of static weights. Rotating their inputs costs digital operations.
        kv: conditioning of K and V in memristive cells, which costs digital operations: one for all, or operand name ->
            its own.

    Raises:
        BadInput: a price is missing, the chip is too small, or an argument has the wrong type.
    """
    check_cost_arguments("simulate", workload, hardware, clip, weights)
    remedy = "LayerSerial() or SequenceBlocking(block=64)"
    check_type("simulate", "dataflow", dataflow, (Dataflow, type(None)), remedy)
    dataflow = dataflow or LayerSerial()
    placement = place_for(dataflow, workload, hardware, clip=clip, rules=rules, weights=weights, kv=kv)
    check_size(placement, dataflow)
    return Run(placement, build_timeline(placement, dataflow))
