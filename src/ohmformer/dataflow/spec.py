"""Which dataflow there is: the order in which the blocks of a sequence go through the stages of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ohmformer.errors import BadInput
from ohmformer.quantities import Count
from ohmformer.registry import Family, register

if TYPE_CHECKING:
    from ohmformer.cost.placement import Placement
    from ohmformer.dataflow.job import Task


class Dataflow(Family):
    """How the tokens of a sample go through the stages of its layers.

    A kind that cuts sequences into blocks says `block_size` and `joins`; it has the closed form of a pipeline. One
    with another order of work says its `tasks`, and is timed by the event engine alone.

    `batching`: whether samples follow one another through the stages of a layer (`pipelined`), or each runs alone.
    """

    family: ClassVar[str] = "dataflow"

    kind: str
    batching: Literal["pipelined", "serial"] = "pipelined"

    def block_size(self, tokens: int) -> int:
        """Tokens of a block of a sample with so many: 1 to all of them."""
        return tokens

    def joins(self) -> bool:
        """True if bidirectional attention waits for the keys and values of all blocks."""
        return True

    def tasks(self, placement: Placement) -> Sequence[Task] | None:
        """All tasks in program order: each unit takes its tasks in this order; None for those of the blocks.

        Of every stage the shares of its tasks add up to 1, which is the energy of all samples.
        """
        return None

    @property
    def has_closed_form(self) -> bool:
        """True if its tasks are those of the blocks, so that max-plus algebra gives the latency."""
        return type(self).tasks is Dataflow.tasks

    def size_of_block(self, tokens: int) -> int:
        """`block_size`, checked.

        Raises:
            BadInput: it is no whole number from 1 to `tokens`.
        """
        size = self.block_size(tokens)
        if not isinstance(size, int) or not 1 <= size <= tokens:
            raise BadInput(
                f"{type(self).__name__}.block_size({tokens}): gives {size!r}; give a whole number up to that"
            )
        return size


@register
class LayerSerial(Dataflow):
    """The whole sequence goes through one stage, then through the next: the baseline.

    `batching`: whether samples follow one another through the stages of a layer (`pipelined`), or each runs alone.
    """

    kind: Literal["layer_serial"] = "layer_serial"


@register
class SequenceBlocking(Dataflow):
    """Blocks of a sequence follow one another through the stages of a layer, so that all units work at once.

    `dependencies`: `exact` keeps the edge of bidirectional attention, where every query needs the keys and values of
    all blocks; `published` takes blocks as independent, which the latency that X-Former reports implies.
    """

    kind: Literal["sequence_blocking"] = "sequence_blocking"
    block: Count = 64
    dependencies: Literal["exact", "published"] = "exact"

    def block_size(self, tokens: int) -> int:
        """`block`, or the whole of a shorter sequence."""
        return min(self.block, tokens)

    def joins(self) -> bool:
        """True for exact dependencies."""
        return self.dependencies == "exact"
