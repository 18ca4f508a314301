"""Placement: maps a workload to an accelerator, with the priced stages of every layer, arrays, tiles and area.

The weights of a layer stay in its arrays. Keys and values go to arrays of their layer, or to arrays that all layers
share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ohmformer import units
from ohmformer.array.event_counter import Counts
from ohmformer.cost.chips.contents import Contents, contents_of
from ohmformer.cost.chips.layout import ALONE, Layout, SharedChips, layout_of
from ohmformer.cost.chips.sums import homes_of_chips, refresh_of_chips
from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.layers import Batching, Divided, PlacedLayer, count_softmax_units
from ohmformer.cost.machine.arguments import check_choices, check_clip, check_cost_arguments, check_kv, check_sets
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.network.load import highest_loads, link_notes
from ohmformer.cost.stage import MEMORY, By, Stage, total_energy
from ohmformer.cost.write_wear import Wear, wear
from ohmformer.errors import BadInput, check_type, printable
from ohmformer.hardware.price_notes import machine_notes, unit_notes
from ohmformer.hardware.rules import RuleBook, Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class Placement:
    """A workload on an accelerator.

    Attributes:
        workload: the operations.
        hardware: the accelerator.
        layers: the layers with their priced stages.
        arrays: role ("projection", "attention.key", "attention.value") -> number of arrays.
        arrays_per_polarity: number of all arrays, counting a differential pair once.
        tiles: number of tiles; 0 for a GPU.
        area: area of the chip, or of all chips together [m^2].
        power: standing power that does not depend on what works [W]; `Stage.standing` adds to it.
        wear: writes per cell of keys and values, for each kind of array.
        kv_sets: number of sets of the K and V arrays that layers share.
        softmax_sets: `one` set of softmax units for all layers, or `per_layer`, one for each K array of a layer's own.
        machine: what is built.
        choice: engines, clips and conditionings of its products.
        refresh: the refresh of K and V during the pass; None if cells keep their values.
        homes: what lives in the memories of tiles, and what off the chip, of all chips together.
        weight_uses: how often weights in memories are read or loaded.
        layout: which chips hold which layers; None if there is one chip.
        homes_of: for each group of chips, what lives in the memories of one of its chips; empty if there is one chip.
    """

    workload: Workload
    hardware: Accelerator
    layers: tuple[PlacedLayer, ...]
    arrays: Mapping[str, int]
    arrays_per_polarity: int
    tiles: int
    area: float
    power: float
    wear: tuple[Wear, ...]
    kv_sets: int = 1
    softmax_sets: str = "one"
    machine: Machine | None = field(default=None, repr=False, compare=False)
    choice: EngineChoice | None = field(default=None, repr=False)
    refresh: Refresh | None = None
    homes: Homes = field(default_factory=Homes)
    weight_uses: int = 1
    layout: Layout | None = None
    homes_of: tuple[Homes, ...] = ()

    @property
    def homes_by_chip(self) -> tuple[Homes, ...]:
        """For each group of chips, what lives in the memories of one of its chips; of one chip its own alone."""
        return self.homes_of or (self.homes,)

    @classmethod
    def on(
        cls,
        machine: Machine,
        workload: Workload,
        layers: tuple[PlacedLayer, ...],
        wear: tuple[Wear, ...],
        kv_sets: int,
        softmax_sets: str,
        **further: Any,
    ) -> Placement:
        """Priced layers on a machine, which gives arrays, tiles, area and power; `further` are more fields."""
        numbers = machine.arrays, machine.arrays_per_polarity, machine.used.total, machine.area, machine.power
        sets = kv_sets, softmax_sets
        return cls(workload, machine.hardware, layers, *numbers, wear, *sets, machine=machine, **further)

    def moved_to(self, machine: Machine) -> Placement:
        """The same pass on a machine that is built for further passes, too; wear and refresh are left out."""
        numbers: dict[str, Any] = {"tiles": machine.used.total, "area": machine.area, "power": machine.power}
        numbers |= {"arrays": machine.arrays, "arrays_per_polarity": machine.arrays_per_polarity}
        return replace(self, machine=machine, wear=(), refresh=None, **numbers)

    def divided(self, *, singly: bool = False) -> Divided:
        """The workload before it was priced, see `Divided.of`.

        Raises:
            BadInput: the placement was made by hand.
        """
        if self.choice is None:
            raise BadInput("placement: was made by hand; take one of of.place, of.simulate or of.serve")
        if self.layout is None:
            divided = Divided.of(self.workload, self.choice, singly=singly)
        else:
            divided = self.layout.divided(self.choice, singly=singly)
        return divided.with_homes_of(self.homes_by_chip, self.weight_uses)

    def __repr__(self) -> str:
        """Workload, accelerator and sizes in one line, without the stages."""
        arrays = ", ".join(f"{role} {count:,}" for role, count in self.arrays.items())
        titles = f"{self.workload.title} on {self.hardware.title or 'an accelerator without a title'}"
        return (
            f"Placement({printable(titles)}; layers {len(self.layers):,}, arrays: {arrays}, tiles {self.tiles:,}, area "
            f"{units.show(self.area, 'm^2')}, standing power {units.show(self.power, 'W')})"
        )

    @cached_property
    def energy(self) -> dict[str, float]:
        """Component -> energy of all operations of all samples [J], without standing power."""
        return self.energy_by("component")

    def energy_by(self, kind: By, further: Iterable[tuple[Stage, float]] = ()) -> dict[str, float]:
        """Energy of all operations of all samples [J] by component, operation or engine, without standing power.

        Args:
            kind: how to split it.
            further: more stages to count, each with the number of times that it is done.
        """
        stages = [(stage, count) for layer, count in self.distinct() for stage in layer.all_stages()]
        return total_energy((*stages, *further), kind)

    @cached_property
    def shares_softmax(self) -> bool:
        """True if several units that compute Q K^T take turns with one set of softmax units."""
        return self.softmax_sets == "one" and any(count_softmax_units(layers) > 1 for layers in self.by_chip)

    @cached_property
    def has_pools(self) -> bool:
        """True if several equal units take waiting tokens first come, first served, so that no closed form holds."""
        return any(stage.pool for layer, _ in self.distinct() for stage in layer.all_stages())

    @cached_property
    def shares_memory(self) -> bool:
        """True if several units take turns with the memory off the chip."""
        if not self.homes.off_chip:
            return False
        return any(_count_memory_users(layers) > 1 for layers in self.by_chip)

    @cached_property
    def by_chip(self) -> list[tuple[PlacedLayer, ...]]:
        """The layers of each group of chips; all layers if there is one chip."""
        if self.layout is None:
            return [self.layers]
        return [self.layers[slice(*self.layout.range_of(group))] for group in range(len(self.layout.ends))]

    @cached_property
    def loads(self) -> dict[str, float]:
        """Link ("network", "tile memory") -> its highest load in any stage, see `highest_loads`."""
        return highest_loads(stage for layer, _ in self.distinct() for stage in layer.all_stages())

    @property
    def digital_token_share(self) -> float | None:
        """The share of tokens that no cell holds, of K and V whose first or last tokens are digital; None without."""
        states = [layer.digital_state for layer in self.layers]
        tokens = sum(state.tokens for state in states)
        return sum(state.digital for state in states) / tokens if tokens else None

    @property
    def chips(self) -> int:
        """Number of chips."""
        return 1 if self.machine is None else self.machine.chips

    @property
    def largest_chip(self) -> float:
        """Area of the largest chip [m^2]."""
        return self.area if self.machine is None else self.machine.largest_chip

    @property
    def notes(self) -> list[str]:
        """What latency, energy and area leave out: loads of links, prices that hold for another machine."""
        links = link_notes(self.hardware.chip, self.loads) if self.tiles else []
        return [*links, *machine_notes(self.hardware), *unit_notes([self.hardware])]

    @property
    def counts(self) -> Counts:
        """Events on arrays, for all samples."""
        parts = (stage.counts.times(count) for layer, count in self.distinct() for stage in layer.all_stages())
        return sum(parts, Counts())

    def stages(self) -> list[Stage]:
        """All stages of all layers, setups included."""
        return [stage for layer in self.layers for stage in layer.all_stages()]

    def distinct(self) -> list[tuple[PlacedLayer, int]]:
        """The layers that differ in more than their name, each with the number of equal layers."""
        keys = [(layer.tokens, layer.barrier, id(layer.stages), id(layer.setup)) for layer in self.layers]
        times = Counter(keys)
        return [(layer, times[key]) for key, layer in dict(zip(keys, self.layers, strict=True)).items()]


def _count_memory_users(layers: Iterable[PlacedLayer]) -> int:
    """Number of units of one chip that use the memory off the chip."""
    stages = ((layer, stage) for layer in layers for stage in layer.all_stages())
    using = (pair for pair in stages if pair[1].off_chip or pair[1].unit == MEMORY)
    return len({stage.unit if stage.shared else (layer.name, stage.unit) for layer, stage in using})


def place(
    workload: Workload,
    hardware: Accelerator,
    *,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
    kv_sets: int = 1,
    softmax_sets: str = "one",
    batching: Batching = "pipelined",
    shared: SharedChips = ALONE,
) -> Placement:
    """Price a workload on an accelerator.

    Args:
        workload: the operations.
        hardware: the accelerator; its engines and its chip need prices.
        clip: clip of K and V in memristive cells. Slices that it leaves empty take no cells. SRAM is not clipped.
        rules: engines, arrays, stored sides and clips of products by name, as in `convert` and `trace`. The workload
            must not contain a product that a rule keeps digital.
        weights: mitigation of static weights. Rotating their inputs costs digital operations.
        kv: conditioning of K and V in memristive cells, which costs digital operations: one for all, or operand name ->
            its own.
        kv_sets: number of sets of the K and V arrays that layers share, 1 or 2.
        softmax_sets: `one` set of softmax units, or `per_layer`, one for each K array of a layer's own.
        batching: `pipelined` if all samples use weights that are read or loaded once, `serial` if each needs them anew.
        shared: of several chips, what other passes of the same model decide; by default there are no others.

    Raises:
        BadInput: a price is missing, the chip is too small, or the clip does not fit the arrays; one line with the
            field and the remedy.
    """
    check_cost_arguments("place", workload, hardware, clip, weights)
    check_choices(kv_sets=kv_sets, softmax_sets=softmax_sets, batching=batching)
    check_type("place", "shared", shared, SharedChips, "ohmformer.cost.chips.layout.SharedChips, or leave it out")
    check_clip(hardware, clip)
    check_kv(workload, kv)
    choice = EngineChoice(hardware, clip, RuleBook.read(rules), weights or WeightMitigation(), kv)
    layout = layout_of(workload, choice, kv_sets, shared)
    divided = Divided.of(workload, choice) if layout is None else layout.divided(choice)
    chips = _contents(divided, shared, kv_sets)
    kv_arrays = [entry for chip in chips for entry in chip.kv]
    check_sets(hardware, workload, kv_arrays, kv_sets)
    homes = [chip.homes for chip in chips]
    uses = workload.batch if batching == "serial" and any(home.moves_weights for home in homes) else 1
    layers = divided.with_homes_of(homes, uses).placed()
    heads = max((op.heads for op in divided.workload.dynamic), default=0)
    built = [
        Machine.built(hardware, chip.arrays, chip.kv, heads, sets, chip.used)
        for chip, sets in zip(chips, _sets_of_softmax(layers, layout, softmax_sets), strict=True)
    ]
    sharing = divided.sharing
    further: dict[str, Any] = {"choice": choice, "weight_uses": uses, "layout": layout, "homes": homes[0]}
    further["refresh"] = refresh_of_chips(workload, [(chip.kv, chip.homes) for chip in chips], hardware, sharing)
    own = built[0]
    if layout is not None:
        own = Machine.of_groups(built, sharing)
        further |= {"homes": homes_of_chips(homes, sharing), "homes_of": tuple(homes)}
    return Placement.on(own, workload, layers, tuple(wear(workload, kv_arrays)), kv_sets, softmax_sets, **further)


def _contents(divided: Divided, shared: SharedChips, kv_sets: int) -> list[Contents]:
    """For each group of chips, what one of its chips holds."""
    found = []
    for group in range(len(divided.members)):
        hardware = shared.hardware_of(group, divided.choice.hardware)
        held = divided.distinct_of(group), divided.arrays_of(group)
        found.append(contents_of(divided.workload, hardware, *held, kv_sets))
    return found


def _sets_of_softmax(layers: tuple[PlacedLayer, ...], layout: Layout | None, softmax_sets: str) -> list[int]:
    """For each group of chips, the number of sets of softmax units of one of its chips."""
    if softmax_sets == "one":
        return [1] * (1 if layout is None else len(layout.ends))
    held = [layers] if layout is None else [layers[slice(*layout.range_of(group))] for group in range(len(layout.ends))]
    return [count_softmax_units(each) for each in held]
