"""One call from a workload and an accelerator to all that is known of its time, energy and wear."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ohmformer.cost.placement import Placement, place
from ohmformer.cost.stage import By
from ohmformer.dataflow.jobs import check_size
from ohmformer.dataflow.lifetime import lifetime
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.dataflow.timeline import Timeline
from ohmformer.dataflow.timeline import simulate as _timeline
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class Run:
    """A workload on an accelerator under a dataflow: times in s, energies in J, areas in m^2."""

    placement: Placement
    timeline: Timeline

    @property
    def latency(self) -> float:
        """Of all samples together."""
        return self.timeline.latency

    @property
    def energy(self) -> float:
        """Of all samples together."""
        return self.timeline.energy

    @property
    def power(self) -> float:
        """Mean over the run [W]."""
        return self.timeline.power

    @property
    def area(self) -> float:
        """Of the chip."""
        return self.placement.area

    @property
    def utilization(self) -> dict[str, float]:
        """Engine -> share of the time in which at least one of its units is at work."""
        return self.timeline.utilization

    def energy_by(self, kind: By) -> dict[str, float]:
        """By component, operation or engine.

        Raises:
            BadInput: by something else.
        """
        if kind not in get_args(By):
            raise BadInput(f"energy_by({kind!r}): {suggest(str(kind), list(get_args(By)))}")
        return self.timeline.energy_by(kind)

    def lifetime(self, rate: float | None = None, *, levelling: bool = False, spare: float = 0.0) -> float | None:
        """Seconds until the first cells wear out, at so many passes per second (by default one after another)."""
        passes = 1 / self.latency if rate is None else rate
        found = lifetime(self.placement, passes, levelling=levelling, spare=spare)
        return None if found is None else found.seconds

    def save_trace(self, file: str | Path) -> None:
        """Write the timeline as JSON that opens in Perfetto.

        Raises:
            BadInput: the file cannot be written.
        """
        try:
            Path(file).write_text(json.dumps(self.timeline.chrome_trace()), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{file}: cannot be written ({error.strerror}); choose another place") from error


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
    """Time and price a workload.

    Args:
        workload: from `shapes` or from a real model.
        hardware: an accelerator whose engines and chip have prices.
        dataflow: by default layer by layer.
        clip: of K and V in memristive cells: slices that it leaves empty are not mapped.
        rules: as in `trace`: engines, arrays, writes and clips of products by name.
        weights: how static weights are conditioned: rotating their inputs is digital work.
        kv: how K and V in memristive cells are conditioned, which is digital work; of operands by name, their own.

    Raises:
        BadInput: a price is missing, the chip is too small, or an argument is something else.
    """
    given = (("workload", workload, Workload, "of.shapes"), ("hardware", hardware, Accelerator, "of.load"))
    for name, value, kind, maker in given:
        if not isinstance(value, kind):
            raise BadInput(f"{name} = {value!r}: is no {kind.__name__}; take {maker}({value!r}), if that is its name")
    if not isinstance(dataflow, Dataflow | None):
        raise BadInput(f"dataflow = {dataflow!r}: is no dataflow; take LayerSerial() or SequenceBlocking(block=64)")
    placement = place(workload, hardware, clip=clip, rules=rules, weights=weights, kv=kv)
    check_size(placement, dataflow or LayerSerial())
    return Run(placement, _timeline(placement, dataflow or LayerSerial()))
