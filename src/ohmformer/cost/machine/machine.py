"""`Machine`: the arrays, tiles, area and standing power of an accelerator that is built for one or several passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ohmformer.cost import tiles
from ohmformer.cost.gpu_roofline import idle_power
from ohmformer.cost.power.standing import chip_power
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
        used: the tiles by what fills them.
        arrays: role ("projection", "attention.key", "attention.value") -> number of arrays.
        arrays_per_polarity: number of all arrays, counting a differential pair once.
        area: area [m^2].
        power: standing power [W].
        groups: if there are several chips: a chip of each group, in the order of layers. All other fields are then
            sums over all chips.
        sharing: for each group, the number of its chips, which are equal.
    """

    hardware: Accelerator
    weights: list[LayerArrays]
    kv: list[KVArrays]
    heads: int
    softmax: int
    used: Tiles
    arrays: dict[str, int]
    arrays_per_polarity: int
    area: float
    power: float
    groups: tuple[Machine, ...] = ()
    sharing: tuple[int, ...] = (1,)

    @property
    def chips(self) -> int:
        """Number of chips."""
        return sum(self.sharing)

    @property
    def by_chip(self) -> tuple[Machine, ...]:
        """A chip of each group; the machine itself if there is one chip."""
        return self.groups or (self,)

    @property
    def largest_chip(self) -> float:
        """Area of the largest chip [m^2]."""
        return max((chip.area for chip in self.groups), default=self.area)

    @classmethod
    def of_groups(cls, groups: Sequence[Machine], sharing: Sequence[int]) -> Machine:
        """The machine of several chips.

        Args:
            groups: a chip of each group.
            sharing: for each group, the number of such chips.
        """
        first, chips = groups[0], list(zip(groups, sharing, strict=True))
        roles = dict.fromkeys(role for chip in groups for role in chip.arrays)
        used = Tiles(
            [(role, array, times * count) for chip, times in chips for role, array, count in chip.used.kinds],
            [(array, times * count) for chip, times in chips for array, count in chip.used.transposable],
        )
        return cls(
            first.hardware,
            [layers for chip in groups for layers in chip.weights],
            [entry for chip in groups for entry in chip.kv],
            max(chip.heads for chip in groups),
            max(chip.softmax for chip in groups),
            used,
            {role: sum(times * chip.arrays.get(role, 0) for chip, times in chips) for role in roles},
            sum(times * chip.arrays_per_polarity for chip, times in chips),
            sum(times * chip.area for chip, times in chips),
            sum(times * chip.power for chip, times in chips),
            tuple(groups),
            tuple(sharing),
        )

    @classmethod
    def built(
        cls,
        hardware: Accelerator,
        weights: list[LayerArrays],
        kv: list[KVArrays],
        heads: int,
        softmax: int,
        used: Tiles | None = None,
    ) -> Machine:
        """The machine of these matrices; `used` are its tiles, where they are known already.

        Raises:
            BadInput: the chip has fewer tiles than they need, or a price is missing.
        """
        used = tiles.allocate_tiles(hardware, weights, kv) if used is None else used
        weight_arrays = tiles.weight_arrays(hardware, weights)
        arrays = {"projection": sum(count for _, count in weight_arrays)}
        for entry in kv:
            arrays[entry.role] = arrays.get(entry.role, 0) + entry.arrays
        per_polarity = sum(count // array.polarities for array, count in weight_arrays)
        per_polarity += sum(entry.arrays_per_polarity for entry in kv)
        area = tiles.chip_area(hardware, used, heads, softmax)
        power = idle_power(hardware) + chip_power(hardware, used.total)
        return cls(hardware, weights, kv, heads, softmax, used, arrays, per_polarity, area, power)

    def joined(self, other: Machine) -> Machine:
        """The machine that runs the passes of both: the larger of each kind of arrays and of units.

        Both must run the same model, so that the one with more weights has those of the other, and have the same layers
        on the same chips.

        Raises:
            BadInput: a chip has fewer tiles than both need.
        """
        if self.groups:
            pairs = zip(self.groups, other.groups, strict=True)
            return Machine.of_groups([one.joined(chip) for one, chip in pairs], self.sharing)
        weights, kv = larger_weights(self.weights, other.weights), joined_kv(self.kv, other.kv)
        heads, softmax = max(self.heads, other.heads), max(self.softmax, other.softmax)
        return Machine.built(self.hardware, weights, kv, heads, softmax)


def larger_weights(one: list[LayerArrays], other: list[LayerArrays]) -> list[LayerArrays]:
    """Of the weights of two passes of a model, those that fill more arrays."""
    return max(one, other, key=lambda layers: sum(each.count * each.arrays for each in layers))


def joined_kv(one: list[KVArrays], other: list[KVArrays]) -> list[KVArrays]:
    """The arrays of K and V that two passes need: the larger of each kind."""
    kv = {group_of(entry): entry for entry in one}
    for entry in other:
        kv[group_of(entry)] = _joined(kv[group_of(entry)], entry) if group_of(entry) in kv else entry
    return list(kv.values())


def group_of(entry: KVArrays) -> tuple[object, ...]:
    """Equal for arrays that hold the same operands in two passes."""
    attention = entry.uses[0].op.stage if entry.shared else ""
    engine = id(entry.engine.array), entry.engine.written, entry.engine.write_lines
    return entry.role, *engine, entry.shared, attention


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
