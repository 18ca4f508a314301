"""`Machine`: the arrays, tiles, area and standing power of an accelerator that is built for one or several passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ohmformer.array.spec import Crossbar
from ohmformer.cost import tiles
from ohmformer.cost.gpu_roofline import idle_power
from ohmformer.cost.operands import chip_of
from ohmformer.cost.tiles import KVArrays, KVUse, LayerArrays, Tiles
from ohmformer.hardware.spec import Accelerator
from ohmformer.mapping.planning import Plan


@dataclass(frozen=True, eq=False)
class Machine:
    """What an accelerator is built of for the passes that it has to run.

    Attributes:
        hardware: the accelerator.
        weights: the matrices of each kind of layer.
        kv: the arrays of K and V.
        heads: the largest number of heads of an attention.
        softmax: number of sets of softmax units.
    """

    hardware: Accelerator
    weights: tuple[LayerArrays, ...]
    kv: tuple[KVArrays, ...]
    heads: int
    softmax: int

    @cached_property
    def used(self) -> Tiles:
        """The tiles by what fills them.

        Raises:
            BadInput: the chip has fewer.
        """
        return tiles.allocate_tiles(self.hardware, list(self.weights), list(self.kv))

    @cached_property
    def arrays(self) -> dict[str, int]:
        """Role -> number of arrays."""
        counts = {"projection": sum(count for _, count in self._weight_arrays)}
        for entry in self.kv:
            counts[entry.role] = counts.get(entry.role, 0) + entry.arrays
        return counts

    @cached_property
    def arrays_per_polarity(self) -> int:
        """Number of all arrays, counting a differential pair once."""
        weights = sum(count // array.polarities for array, count in self._weight_arrays)
        return weights + sum(entry.arrays_per_polarity for entry in self.kv)

    @cached_property
    def _weight_arrays(self) -> list[tuple[Crossbar, int]]:
        return tiles.weight_arrays(self.hardware, list(self.weights))

    @cached_property
    def area(self) -> float:
        """Area [m^2]."""
        return tiles.chip_area(self.hardware, self.used, self.heads, self.softmax)

    @cached_property
    def power(self) -> float:
        """Standing power [W]."""
        total = self.used.total
        return idle_power(self.hardware) + (chip_of(self.hardware).tile_power * total if total else 0.0)

    def joined(self, other: Machine) -> Machine:
        """The machine that runs the passes of both: the larger of each kind of arrays and of units.

        Both must run the same model, so that the one with more weights has those of the other.
        """
        weights = max(self.weights, other.weights, key=lambda layers: sum(each.count * each.arrays for each in layers))
        kv = {group_of(entry): entry for entry in self.kv}
        for entry in other.kv:
            kv[group_of(entry)] = _joined(kv[group_of(entry)], entry) if group_of(entry) in kv else entry
        heads, softmax = max(self.heads, other.heads), max(self.softmax, other.softmax)
        return Machine(self.hardware, weights, tuple(kv.values()), heads, softmax)


def group_of(entry: KVArrays) -> tuple[object, ...]:
    """Equal for arrays that hold the same operands in two passes."""
    attention = entry.uses[0].op.stage if entry.shared else ""
    return entry.role, id(entry.engine.array), entry.engine.written, entry.shared, attention


def _joined(one: KVArrays, other: KVArrays) -> KVArrays:
    """Arrays that hold the K or V of either pass, product by product where both passes have the same products."""
    if one.shared or len(one.plans) != len(one.uses) or len(other.plans) != len(other.uses):
        return max(one, other, key=_size)
    wide, narrow = sorted((_by_name(one), _by_name(other)), key=len, reverse=True)
    if any(name not in wide or wide[name][0].layers != use.layers for name, (use, _, _) in narrow.items()):
        return max(one, other, key=_size)
    for name, entry in narrow.items():
        wide[name] = max(wide[name], entry, key=lambda each: (each[1].arrays * each[2], each[1].cells * each[2]))
    uses = tuple(use for use, _, _ in wide.values())
    return replace(one, uses=uses, plans=tuple((plan, count) for _, plan, count in wide.values()))


def _by_name(entry: KVArrays) -> dict[str, tuple[KVUse, Plan, int]]:
    """Name of a product -> the product, and the matrices that have cells, with their number."""
    return {use.op.name: (use, *plan) for use, plan in zip(entry.uses, entry.plans, strict=True)}


def _size(entry: KVArrays) -> tuple[int, int]:
    return entry.arrays, entry.cells
