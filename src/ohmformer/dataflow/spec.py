"""Dataflows: the order in which blocks of tokens pass through the stages of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Count
from ohmformer.registry import Family, called, refuse_former_names, register

if TYPE_CHECKING:
    from ohmformer.cost.placement import Placement
    from ohmformer.dataflow.job import Job


class Dataflow(Family):
    """Base of all dataflows: how the tokens of a sample pass through the stages of its layers.

    Each unit does one thing at a time. Fills of pipelines and links (`Stage.fixed`) are latency: they delay a result
    and leave its unit free for the next block.

    A kind that cuts sequences into blocks defines `block_size`, `has_barrier` and `overlaps`; its latency has a closed
    form. A kind with another order of work defines `jobs`, and only the event engine times it.

    Attributes:
        batching: `pipelined` if samples follow one another through the stages of a layer; `serial` if each sample runs
            alone.
    """

    family: ClassVar[str] = "dataflow"

    kind: str
    batching: Literal["pipelined", "serial"] = "pipelined"

    def block_size(self, tokens: int) -> int:
        """Tokens per block for a sample of `tokens` tokens: from 1 to `tokens`."""
        return tokens

    def has_barrier(self) -> bool:
        """True if bidirectional attention is a barrier: it waits for the keys and values of all blocks."""
        return True

    def overlaps(self) -> bool:
        """True if a block enters the next layer while other blocks are still in this one."""
        return False

    def kv_sets(self) -> int:
        """Number of sets of the K and V arrays that layers share; layers take turns with them."""
        return 1

    def softmax_sets(self) -> Literal["one", "per_layer"]:
        """Number of sets of softmax units where each layer has K arrays of its own: `one`, or one for each layer."""
        return "one"

    def jobs(self, placement: Placement) -> Sequence[Job] | None:
        """All jobs in program order: each unit takes its jobs in this order.

        The shares of the jobs of a stage must add up to 1, which stands for the energy of all samples.

        Returns:
            The jobs, or None if they follow from `block_size`, `has_barrier` and `overlaps`.
        """
        return None

    @classmethod
    def check_class(cls) -> None:
        """Refuse a class that still defines a method under a former name.

        Raises:
            BadInput: it does.
        """
        refuse_former_names(cls, {"tasks": "jobs", "joins": "has_barrier"})

    @property
    def has_closed_form(self) -> bool:
        """True if jobs follow from `block_size`, `has_barrier` and `overlaps`: max-plus algebra gives the latency."""
        return type(self).jobs is Dataflow.jobs

    def size_of_block(self, tokens: int) -> int:
        """`block_size`, checked.

        Raises:
            BadInput: it is not a whole number from 1 to `tokens`, or there is none, since the method fails.
        """
        size = called(self, "block_size", tokens)
        if type(size) is not int or not 1 <= size <= tokens:
            raise BadInput(
                f"{type(self).__name__}.block_size({tokens}): gives {shown(size)}; "
                f"return a whole number from 1 to {tokens}"
            )
        return size

    def decides(self, method: Literal["has_barrier", "overlaps"]) -> bool:
        """What one of these methods returns, checked.

        Raises:
            BadInput: the method fails, or returns anything but True or False.
        """
        value = called(self, method)
        if type(value) is not bool:
            raise BadInput(f"{type(self).__name__}.{method}(): gives {shown(value)}; return True or False")
        return value


@register
class LayerSerial(Dataflow):
    """The baseline: the whole sequence passes through one stage, then through the next.

    Attributes:
        batching: see `Dataflow`.
    """

    kind: Literal["layer_serial"] = "layer_serial"


@register
class SequenceBlocking(Dataflow):
    """Blocks of a sequence follow one another through the stages of a layer, so that all units work at once.

    Attributes:
        batching: see `Dataflow`.
        block: tokens per block.
        dependencies: `exact` keeps the dependency of bidirectional attention, where every query needs the keys and
            values of all blocks; `published` treats blocks as independent, which the latency that X-Former reports
            implies.
    """

    kind: Literal["sequence_blocking"] = "sequence_blocking"
    block: Count = 64
    dependencies: Literal["exact", "published"] = "exact"

    def block_size(self, tokens: int) -> int:
        """`block`, or the length of a shorter sequence."""
        return min(self.block, tokens)

    def has_barrier(self) -> bool:
        """True if dependencies are exact."""
        return self.dependencies == "exact"


@register
class LayerOverlap(Dataflow):
    """Blocks follow one another through all layers: a block enters a layer when it has left the layer before.

    With s equal stages per layer, units of its own in each layer and B blocks, L layers take L (B + s - 1) + B - 1
    block times if attention is bidirectional, and L s + B - 1 if it is causal. Dependencies are exact. Units that
    layers share take the blocks of one layer, sample by sample, before those of the next.

    Attributes:
        batching: see `Dataflow`.
        block: tokens per block.
        kv_cells: where layers share the arrays of K and V: with `single`, a layer waits with its first write until the
            layer before it has read its K and V for the last time; `double` takes a second set of arrays, which counts
            in area, standing power and wear, and layers use the two in turn. Refused where layers share no such arrays.
        softmax: where each layer has K arrays of its own: `per_layer` gives each a set of softmax units, which counts
            in the area; `shared` has one set, which serves the Q K^T of one layer at a time, in the order of layers.
            Refused where layers do not compete for softmax units.
    """

    kind: Literal["layer_overlap"] = "layer_overlap"
    block: Count = 64
    kv_cells: Literal["single", "double"] = "single"
    softmax: Literal["per_layer", "shared"] = "per_layer"

    def block_size(self, tokens: int) -> int:
        """`block`, or the length of a shorter sequence."""
        return min(self.block, tokens)

    def overlaps(self) -> bool:
        """True: a block enters the next layer when it has left this one."""
        return True

    def kv_sets(self) -> int:
        """Two if `kv_cells` is `double`."""
        return 2 if self.kv_cells == "double" else 1

    def softmax_sets(self) -> Literal["one", "per_layer"]:
        """`one` if `softmax` is `shared`; otherwise `per_layer`."""
        return "one" if self.softmax == "shared" else "per_layer"
