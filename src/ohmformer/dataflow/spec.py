"""Dataflows: the order in which blocks of tokens pass through the stages of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Count
from ohmformer.registry import Family, called, register

if TYPE_CHECKING:
    from ohmformer.cost.placement import Placement
    from ohmformer.dataflow.job import Job


class Dataflow(Family):
    """Base of all dataflows: how the tokens of a sample pass through the stages of its layers.

    A kind that cuts sequences into blocks defines `block_size` and `joins`; its latency has a closed form. A kind with
    another order of work defines `jobs`, and only the event engine times it.

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

    def joins(self) -> bool:
        """True if bidirectional attention waits for the keys and values of all blocks."""
        return True

    def jobs(self, placement: Placement) -> Sequence[Job] | None:
        """All jobs in program order: each unit takes its jobs in this order.

        The shares of the jobs of a stage must add up to 1, which stands for the energy of all samples.

        Returns:
            The jobs, or None if they follow from `block_size` and `joins`.
        """
        return None

    @classmethod
    def check_class(cls) -> None:
        """Refuse a class that still defines `tasks`, the former name of `jobs`.

        Raises:
            BadInput: it does.
        """
        if hasattr(cls, "tasks"):
            raise BadInput(f"register({cls.__name__}): the method tasks is now called jobs; rename it")

    @property
    def has_closed_form(self) -> bool:
        """True if the jobs follow from `block_size` and `joins`, so that max-plus algebra gives the latency."""
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

    def joins(self) -> bool:
        """True if dependencies are exact."""
        return self.dependencies == "exact"
