"""`Served`: what a batch of requests takes on one machine; the result of `serve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ohmformer import units
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.request_wear import Writes, request_wear, with_refreshes, writes_of_chips
from ohmformer.cost.network.load import link_notes, most_of
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import By, check_split
from ohmformer.cost.write_wear import Wear
from ohmformer.dataflow.lifetime import Lifetime, given_rate, lifetime_of, real_number
from ohmformer.dataflow.retention.pauses import Pauses
from ohmformer.dataflow.serving.chunked_prefill import chunked_prefill
from ohmformer.dataflow.serving.decoding import Decoding
from ohmformer.dataflow.serving.request_ages import request_ages
from ohmformer.dataflow.serving.request_refresh import RequestRefresh
from ohmformer.dataflow.serving.request_trace import request_trace
from ohmformer.dataflow.serving.steady_state import SteadyState, steady_state
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import Timeline, build_timeline, gated_energy
from ohmformer.errors import BadInput, check_type, shown
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.price_notes import machine_notes, unit_notes
from ohmformer.terminal.files import write_text
from ohmformer.terminal.plain import clean
from ohmformer.workload.request import RequestPasses

Array = npt.NDArray[np.float64]

COLUMNS = ("", "time", "energy", "power", "tokens/s", "energy of a token")


@dataclass(frozen=True)
class PassCost:
    """Time and energy of a part of the requests, for the whole batch.

    Attributes:
        name: the part.
        seconds: time [s].
        joules: energy, standing power included [J].
        tokens: generated tokens.
    """

    name: str
    seconds: float
    joules: float
    tokens: int


@dataclass(frozen=True, eq=False, repr=False)
class Served:
    """A batch of requests that start together, on one machine.

    The prefill makes the first token of every request. Each decoding step makes one more token of every request; it
    starts when the step before it has ended for all requests of the batch.

    Attributes:
        passes: the workloads of prefill and decoding steps.
        machine: the machine, sized for the longest cache of the requests.
        dataflow: the order of work in a pass.
        prefill: the prefill, priced; its own arrays, tiles and area are those of a machine for the prefill alone.
        decoding: the decoding steps, priced; None if one token is generated.
        prefill_work: time of computing of the prefill [s].
        alone: the prefill of one request, priced; None if it is unknown.
    """

    passes: RequestPasses
    machine: Machine
    dataflow: Dataflow
    prefill: Placement
    decoding: Decoding | None
    prefill_work: float
    alone: Placement | None

    @cached_property
    def refresh(self) -> RequestRefresh | None:
        """The refreshes of keys and values; None if cells keep their values."""
        if self.prefill.refresh is None:
            return None
        work = [self.prefill_work]
        kinds = [self.prefill.refresh]
        if self.decoding is not None:
            work += self.decoding.latencies.tolist()
            kinds += self.decoding.refreshes
        return RequestRefresh.during(tuple(kinds), np.array(work))

    @cached_property
    def ttft(self) -> float:
        """Time to first token: the latency of the prefill, refreshes included [s]."""
        return self.prefill_work + (float(self.refresh.seconds[0]) if self.refresh else 0.0)

    @cached_property
    def step_latency(self) -> Array:
        """The latency of each decoding step, which is the time between two tokens of a request [G - 1] [s]."""
        if self.decoding is None:
            return np.zeros(0)
        return self.decoding.latencies + self.refresh.seconds[1:] if self.refresh else self.decoding.latencies

    @cached_property
    def step_energy(self) -> Array:
        """The energy of each decoding step, for all requests, standing power included [G - 1] [J]."""
        if self.decoding is None:
            return np.zeros(0)
        found: Array = self.decoding.energies + self.machine.power * self.step_latency
        found += self.decoding.gated
        return found + (self.refresh.joules + self.refresh.gated)[1:] if self.refresh else found

    @cached_property
    def prefill_energy(self) -> float:
        """The energy of the prefill, for all requests, standing power included [J]."""
        again = float(self.refresh.joules[0] + self.refresh.gated[0]) if self.refresh else 0.0
        static = self.machine.power * self.ttft + self.prefill_gated
        return sum(self.prefill.energy.values()) + again + static

    @cached_property
    def prefill_gated(self) -> float:
        """Energy of gated tiles at work in the prefill [J]; 0 if tiles are always on."""
        return gated_energy(self.prefill, self.dataflow)

    @property
    def tpot(self) -> float | None:
        """Time per output token: the mean latency of the decoding steps [s]; None if there are none."""
        return float(self.step_latency.mean()) if len(self.step_latency) else None

    @property
    def first_tpot(self) -> float | None:
        """The latency of the first decoding step [s]; None if there are none."""
        return float(self.step_latency[0]) if len(self.step_latency) else None

    @property
    def last_tpot(self) -> float | None:
        """The latency of the last decoding step [s]; None if there are none."""
        return float(self.step_latency[-1]) if len(self.step_latency) else None

    @cached_property
    def latency(self) -> float:
        """Time from the start of the prefill to the last token [s]."""
        return self.ttft + float(self.step_latency.sum())

    @cached_property
    def energy(self) -> float:
        """Energy of all requests, standing power included [J]."""
        return self.prefill_energy + float(self.step_energy.sum())

    @property
    def tokens(self) -> int:
        """Generated tokens of all requests."""
        return self.passes.batch * self.passes.generate

    @property
    def energy_per_token(self) -> float:
        """Energy of all requests divided by their generated tokens [J]."""
        return self.energy / self.tokens

    @property
    def output_tokens_per_s(self) -> float:
        """Generated tokens per second, prefill included [1/s]."""
        return self.tokens / self.latency

    @property
    def requests_per_s(self) -> float:
        """Requests per second, if one batch follows another [1/s]."""
        return self.passes.batch / self.latency

    @property
    def power(self) -> float:
        """Mean power [W]."""
        return self.energy / self.latency

    @property
    def area(self) -> float:
        """Area of the machine [m^2]."""
        return self.machine.area

    def energy_by(self, kind: By) -> dict[str, float]:
        """Energy of all requests [J], split by component, operation or engine.

        The entry `static` is the energy of standing power, see `Timeline.energy_by`.

        Raises:
            BadInput: `kind` is not one of these.
        """
        check_split(kind)
        dynamic = sum_by_name(self.prefill.energy_by(kind), self.decoding.energy_by(kind) if self.decoding else {})
        if self.refresh:
            dynamic = sum_by_name(dynamic, self.refresh.energy_by(kind))
        static = self.machine.power * self.latency + self.prefill_gated
        static += float(self.decoding.gated.sum()) if self.decoding else 0.0
        static += float(self.refresh.gated.sum()) if self.refresh else 0.0
        return sum_by_name(dynamic, {"static": static}) if static else dynamic

    @cached_property
    def writes(self) -> tuple[Writes, ...]:
        """Writes per cell of keys and values over all passes of the batch, for each kind of array."""
        assert self.prefill.machine is not None
        passes = [(self.prefill.workload, [chip.kv for chip in self.prefill.machine.by_chip])]
        if self.decoding is not None:
            prices = self.decoding.prices
            passes += [(prices.last.workload, prices.kv_arrays(index)) for index in range(self.decoding.steps.count)]
        found = writes_of_chips(self.machine, passes)
        if self.refresh is None:
            return found
        return with_refreshes(self.machine, found, self.refresh.count, self.refresh.cell_writes)

    @property
    def wear(self) -> tuple[Wear, ...]:
        """The writes of cells whose endurance is known, for each kind of array."""
        return request_wear(self.writes)

    def ages(self, request: int = 0) -> Ages:
        """How old keys and values in cells are when they are read, and how often their cells are written.

        Args:
            request: number of the request of the batch.

        Raises:
            BadInput: see `request_ages`.
        """
        return request_ages(self, request)

    def first_worn(
        self, rate: float | str | None = None, *, leveling: bool = False, spare: float = 0.0
    ) -> Lifetime | None:
        """When the first cells that hold keys and values wear out, and what decides it.

        Args:
            rate: batches of requests per second, as a number or as text with a unit; by default one follows another.
            leveling: see `dataflow.lifetime.lifetime`.
            spare: see `dataflow.lifetime.lifetime`.

        Returns:
            The lifetime, or None if cells are written whose endurance is unknown.

        Raises:
            BadInput: an argument has the wrong type, or the rate or `spare` is out of range.
        """
        check_type("first_worn", "leveling", leveling, bool, "True or False")
        spare = real_number("spare", spare, "a fraction, such as 0.1")
        roles = {role for role, count in self.machine.arrays.items() if role != "projection" and count}
        batches_per_second = 1 / self.latency if rate is None else given_rate(rate)
        kind = self.machine.hardware.attention.arrays
        return lifetime_of(self.wear, roles, batches_per_second, kind, leveling=leveling, spare=spare)

    def lifetime(self, rate: float | str | None = None, *, leveling: bool = False, spare: float = 0.0) -> float | None:
        """Time until the first cells wear out [s]; arguments and result as those of `Run.lifetime`.

        Args:
            rate: batches of requests per second; by default one follows another.
            leveling: see `dataflow.lifetime.lifetime`.
            spare: see `dataflow.lifetime.lifetime`.

        Raises:
            BadInput: see `first_worn`.
        """
        worn = self.first_worn(rate, leveling=leveling, spare=spare)
        return None if worn is None else worn.seconds

    @cached_property
    def steady(self) -> SteadyState | None:
        """The steady state of as many requests at a time.

        None if the prefill of one request is unknown, if the dataflow defines its own jobs, if tokens of several
        requests wait for units first come, first served, or if the decoding steps differ in more than the lengths of
        their caches.

        Raises:
            BadInput: there are too many jobs to compute.
        """
        if self.alone is None or (self.decoding is not None and not self.decoding.one_recursion):
            return None
        again = self.refresh.kinds if self.refresh else ()
        return steady_state(self.decoding, self.machine, self.dataflow, self.passes.batch, self.alone, again)

    def chunked_prefill(self, chunk: int) -> SteadyState:
        """The steady state if `chunk` tokens of a new prompt join each decoding step, and no prefill runs alone.

        It holds for decoders whose weights are in cells.

        Raises:
            BadInput: see `serving.chunked_prefill.chunked_prefill`.
        """
        return chunked_prefill(self, chunk)

    @cached_property
    def loads(self) -> dict[str, float]:
        """Link -> its highest load in any stage of any pass, see `highest_loads`."""
        return most_of((self.prefill.loads, self.decoding.loads if self.decoding else {}))

    @property
    def notes(self) -> list[str]:
        """What latency, energy and area leave out: loads of links, prices that hold for another machine."""
        hardware = self.machine.hardware
        links = link_notes(hardware.chip, self.loads) if self.machine.used.total else []
        return [*links, *machine_notes(hardware), *unit_notes([hardware])]

    def parts(self) -> tuple[PassCost, ...]:
        """Prefill, first, mean and last decoding step, and the whole, each for all requests."""
        batch, steps = self.passes.batch, len(self.step_latency)
        found = [PassCost("prefill", self.ttft, self.prefill_energy, batch)]
        if steps:
            times, joules = self.step_latency, self.step_energy
            found.append(PassCost("first step", float(times[0]), float(joules[0]), batch))
            found.append(PassCost("mean step", float(times.mean()), float(joules.mean()), batch))
            found.append(PassCost("last step", float(times[-1]), float(joules[-1]), batch))
        return (*found, PassCost("all", self.latency, self.energy, self.tokens))

    def timeline(self, step: int | None = None) -> Timeline:
        """The jobs of the prefill (None) or of a decoding step, and when they ran, from 0 and without refreshes.

        Raises:
            BadInput: there is no such step.
        """
        count = self.passes.generate - 1
        if step is None:
            return build_timeline(self.prefill.moved_to(self.machine), self.dataflow)
        if self.decoding is None or type(step) is not int or not 0 <= step < count:
            raise BadInput(f"timeline: step = {shown(step)}: is not a step; there are {count}, counted from 0")
        return build_timeline(self.decoding.placement(step), self.dataflow)

    def pauses_until(self, steps: int) -> Pauses | None:
        """The refreshes of the prefill and of the first `steps` decoding steps; None if there are none."""
        pauses = self.refresh.pauses(1 + steps) if self.refresh else None
        return pauses if pauses is not None and len(pauses.seconds) else None

    def chrome_trace(self, steps: int | None = None) -> dict[str, Any]:
        """Prefill and decoding steps, one after another, in the trace-event format of Perfetto: see `Timeline`.

        Args:
            steps: number of decoding steps; by default all.

        Raises:
            BadInput: there are too many jobs, or fewer steps.
        """
        return request_trace(self, steps)

    def save_trace(self, file: str | Path, steps: int | None = None) -> None:
        """Write `chrome_trace` as a JSON file.

        Raises:
            BadInput: the file cannot be written, or as `chrome_trace`.
        """
        check_type("save_trace", "file", file, (str, PathLike), "the path of the file to write")
        write_text(Path(file), json.dumps(self.chrome_trace(steps)))

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table of `parts`, one tuple per row; see `COLUMNS`."""
        return [tuple(self._cells(part)) for part in self.parts()]

    def _cells(self, part: PassCost) -> Iterator[str]:
        yield part.name
        yield units.show(part.seconds, "s")
        yield units.show(part.joules, "J")
        yield units.show(part.joules / part.seconds, "W")
        yield f"{part.tokens / part.seconds:.4g}"
        yield units.show(part.joules / part.tokens, "J")

    @property
    def title(self) -> str:
        """One line: model, lengths and machine."""
        passes, hardware = self.passes, clean(self.machine.hardware.title) or "(without a title)"
        lengths = f"prompt {passes.prompt:,}, {passes.generate:,} generated, batch {passes.batch:,}"
        return f"{clean(passes.prefill.title)} on {hardware}: {lengths}, {units.square_mm(self.area)}"

    def __repr__(self) -> str:
        """Model, lengths, machine, latency and energy in one line."""
        return f"Served({self.title}, {units.show(self.latency, 's')}, {units.show(self.energy, 'J')})"

    def __str__(self) -> str:
        """The table as text."""
        lines = [COLUMNS, *self.rows()]
        widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *text, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """The table in HTML, for notebooks."""
        from html import escape

        head = "".join(f"<th>{title}</th>" for title in COLUMNS)
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in self.rows()]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table><caption>{escape(self.title)}</caption><tr>{head}</tr>{body}</table>{notes}"
