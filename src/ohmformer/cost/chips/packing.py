"""How consecutive layers are put into groups of chips.

A group takes as many whole layers as fit into the arrays and memories of its chips or, where the number of chips is
given, an even share of all weights. A part outside of layers that is larger than a chip, such as the head of a large
vocabulary, takes a group with more chips, which share its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from ohmformer.cost.chips.contents import contents_of
from ohmformer.cost.chips.even_shares import divided_further, even_ends
from ohmformer.cost.chips.tensor import layer_share
from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.layers import Divided
from ohmformer.cost.memory.request_room import ChipContents, check_both
from ohmformer.errors import BadInput, shown
from ohmformer.workload.spec import Layer, Op, StaticMatMul, Workload

MOST_CHIPS = 256
"""Largest number of chips that share each layer, where the number is not given."""


class Packed(NamedTuple):
    """The layers of each group.

    Attributes:
        ends: for each group, the position after its last layer.
        sharing: for each group, the number of its chips.
    """

    ends: tuple[int, ...]
    sharing: tuple[int, ...]


def packed(passes: Sequence[Workload], choice: EngineChoice, kv_sets: int) -> Packed:
    """Put the layers of a model into groups of chips.

    Args:
        passes: the operations of a pass, then of further passes that run on the same chips.
        choice: the engines.
        kv_sets: see `place`.

    Raises:
        BadInput: there are too few chips or too many, a layer has no room on a chip, or it cannot be shared.
    """
    system, workload = choice.hardware.system, passes[0]
    assert system is not None
    if system.sharing is not None:
        return _Packing(passes, choice, kv_sets, system.sharing).packed()
    for chips in range(1, MOST_CHIPS + 1):
        try:
            packing = _Packing(passes, choice, kv_sets, chips)
        except BadInput:  # the layers cannot be shared by this number of chips
            continue
        if packing.holds_all():
            return Packed((len(workload.layers()),), (chips,))
    raise BadInput(
        f"hardware.system.degree: is missing, and no {MOST_CHIPS} chips or fewer that share each layer hold "
        f"{shown(workload.title)} with batch = {workload.batch}; give degree, so that several groups of chips form a "
        "pipeline"
    )


def on_one_group(ops: list[Op]) -> list[Op]:
    """The operations of a group, in which weights are stored that modules share with those of another group."""
    stored = {op.name: op.name for op in ops if isinstance(op, StaticMatMul) and not op.shared_with}
    result: list[Op] = []
    for op in ops:
        if isinstance(op, StaticMatMul) and op.shared_with and op.shared_with not in stored:
            stored[op.shared_with] = op.name
            op = replace(op, shared_with="")
        elif isinstance(op, StaticMatMul) and op.shared_with and stored[op.shared_with] != op.shared_with:
            op = replace(op, shared_with=stored[op.shared_with])
        result.append(op)
    return result


class _Packing:
    """Puts layers into groups.

    Attributes:
        passes: the passes that run on the chips; the first one decides what layers weigh.
        chips: number of chips that share each layer.
        shares: for each pass, what one of them computes of each layer.
        tied: True if modules share weights, so that what a layer stores depends on the other layers of its group.
        divided: for each pass, its share by kind of layer.
    """

    def __init__(self, passes: Sequence[Workload], choice: EngineChoice, kv_sets: int, chips: int) -> None:
        assert choice.hardware.system is not None
        self.passes, self.choice, self.kv_sets = passes, choice, kv_sets
        self.workload = passes[0]
        self.hardware, self.system = choice.hardware, choice.hardware.system
        self.chips = chips
        self.shares = [_share_of(workload, workload.layers(), chips) for workload in passes]
        self.layers = self.shares[0].layers()
        self.tied = any(isinstance(op, StaticMatMul) and op.shared_with for op in self.workload.ops)
        self.divided = [Divided.of(share, choice) for share in self.shares]
        self._known: dict[tuple[object, ...], bool] = {}

    def packed(self) -> Packed:
        """The layers of each group.

        Raises:
            BadInput: see `packed`.
        """
        wanted = self.system.groups
        even = None if wanted is None else self._even(wanted)
        if wanted is None or even is None:
            found = self._fewest()
            return found if wanted is None else self._spread(found)
        return Packed(even, (self.chips,) * wanted)

    def holds_all(self) -> bool:
        """True if one group has room for all layers."""
        return self._fits(0, len(self.layers))

    def _fewest(self) -> Packed:
        """Fill one group after another."""
        ends: list[int] = []
        sharing: list[int] = []
        while (first := ends[-1] if ends else 0) < len(self.layers):
            end, chips = self._next_group(first)
            ends.append(end)
            sharing.append(chips)
        return Packed(tuple(ends), tuple(sharing))

    def _next_group(self, first: int) -> tuple[int, int]:
        """The position after the last layer that a group has room for from `first` on, and its number of chips."""
        if not self._fits(first, first + 1):
            return first + 1, self._wider(first)
        step, end = 1, first + 1
        while step:
            further = min(end + step, len(self.layers))
            if further > end and self._fits(first, further):
                end, step = further, 2 * step
            else:
                step //= 2
        return end, self.chips

    def _wider(self, first: int) -> int:
        """Number of chips that share a part outside of layers which a usual group has no room for.

        Raises:
            BadInput: it is a layer, or has no room on more chips either.
        """
        layer = self.workload.layers()[first]
        if layer.index is None:
            multiples = [times * self.chips for times in (*range(2, 33), *range(36, 257, 4))]
            wide: int | None = next((chips for chips in multiples if self._shares_fit(first, chips)), None)
            if wide is not None:
                return wide
        more = range(self.chips + 1, MOST_CHIPS + 1)
        enough = next((chips for chips in more if self._shares_fit(first, chips)), None)
        more_chips = f", or take hardware.system.partition = 'tensor' and degree = {enough}" if enough else ""
        try:
            self._check_room(first, first + 1)
        except BadInput as error:
            part = "it" if self.chips == 1 else f"its share for one of {self.chips} chips"
            raise BadInput(f"{error}{more_chips} ({layer.name}: {part} has no room on a chip)") from error
        raise AssertionError(first)

    def _shares_fit(self, position: int, chips: int) -> bool:
        """True if this number of chips can share a layer, and each has room for its share."""
        try:
            shares = [_share_of(each, [each.layers()[position]], chips) for each in self.passes]
            divided = [Divided.of(share, self.choice) for share in shares]
            self._contents(divided, [each.counts for each in divided])
        except BadInput:
            return False
        return True

    def _even(self, groups: int) -> tuple[int, ...] | None:
        """Ends of groups that have as many weights as possible alike; None if some have no room for theirs.

        Raises:
            BadInput: there are fewer layers with weights than groups.
        """
        sizes = self._weights()
        full = sum(size > 0 for size in sizes)
        if groups > full:
            if all(self._fits(first, first + 1) for first in range(len(self.layers))):
                raise self._too_many(full * self.chips)
            return None
        ends = even_ends(sizes, groups)
        return ends if all(self._fits(first, end) for first, end in pairwise((0, *ends))) else None

    def _spread(self, found: Packed) -> Packed:
        """The groups, with those of most weights divided in two until all chips have layers.

        Raises:
            BadInput: there are fewer chips than the model needs, or more than it can use.
        """
        assert self.system.chips is not None
        needed = sum(found.sharing)
        if needed > self.system.chips:
            raise BadInput(
                f"hardware.system.chips = {self.system.chips}: {shown(self.workload.title)} with batch = "
                f"{self.workload.batch} needs {needed}; raise it, or leave it out to take as many as needed"
            )
        ranges = zip(pairwise((0, *found.ends)), found.sharing, strict=True)
        groups = [(first, end, chips) for (first, end), chips in ranges]
        groups = divided_further(groups, self._weights(), (self.system.chips - needed) // self.chips)
        used = sum(chips for _, _, chips in groups)
        if used != self.system.chips:
            raise self._too_many(used)
        return Packed(tuple(end for _, end, _ in groups), tuple(chips for _, _, chips in groups))

    def _too_many(self, most: int) -> BadInput:
        return BadInput(
            f"hardware.system.chips = {self.system.chips}: {shown(self.workload.title)} can use {most}, since a group "
            f"of {self.chips} chips holds whole layers with weights; lower it to {most}"
        )

    def _weights(self) -> list[int]:
        """Number of weights of each layer."""
        return [
            sum(op.inputs * op.outputs for op in layer.ops if isinstance(op, StaticMatMul)) for layer in self.layers
        ]

    def _fits(self, first: int, end: int) -> bool:
        key: tuple[object, ...] = (first, end)
        if not self.tied:
            key = tuple(tuple(sorted(Counter(each.kinds[first:end]).items())) for each in self.divided)
        if key not in self._known:
            try:
                self._check_room(first, end)
                self._known[key] = True
            except BadInput:
                self._known[key] = False
        return self._known[key]

    def _check_room(self, first: int, end: int) -> None:
        """Refuse layers for which a chip has no room in its arrays and memories.

        Raises:
            BadInput: it has none.
        """
        if self.tied:
            divided = []
            for share in self.shares:
                ops = on_one_group([op for layer in share.layers()[first:end] for op in layer.ops])
                divided.append(Divided.of(replace(share, ops=tuple(ops)), self.choice))
            return self._contents(divided, [each.counts for each in divided])
        self._contents(self.divided, [Counter(each.kinds[first:end]) for each in self.divided])

    def _contents(self, passes: Sequence[Divided], counts: Sequence[Mapping[int, int]]) -> None:
        """Refuse some layers of each kind, given for each pass, for which a chip has no room.

        Raises:
            BadInput: it has none.
        """
        held = []
        for workload, divided, kinds in zip(self.passes, passes, counts, strict=True):
            distinct = [(divided.work[kind], count) for kind, count in kinds.items()]
            arrays = []
            for kind, count in kinds.items():
                one = divided.in_arrays[kind]
                arrays.append(replace(one, count=count, kv=[replace(use, layers=count) for use in one.kv]))
            found = contents_of(workload, self.hardware, distinct, arrays, self.kv_sets)
            held.append(ChipContents(workload, self.hardware, distinct, found.homes, found.arrays, found.kv))
        last, *prefill = held
        for each in prefill:
            check_both(each, last)


def _share_of(workload: Workload, layers: Sequence[Layer], chips: int) -> Workload:
    """What one of `chips` chips that share each layer computes of some layers."""
    ops = tuple(op for layer in layers for op in layer_share(layer, chips, workload.title))
    return replace(workload, ops=ops)
