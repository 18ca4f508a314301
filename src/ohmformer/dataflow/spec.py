"""Which dataflow there is: the order in which the blocks of a sequence go through the stages of a layer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ohmformer.quantities import Count
from ohmformer.schema import Spec


class LayerSerial(Spec):
    """The whole sequence goes through one stage, then through the next: the baseline.

    `batching`: whether samples follow one another through the stages of a layer (`pipelined`), or each runs alone.
    """

    kind: Literal["layer_serial"] = "layer_serial"
    batching: Literal["pipelined", "serial"] = "pipelined"


class SequenceBlocking(Spec):
    """Blocks of a sequence follow one another through the stages of a layer, so that all units work at once.

    `dependencies`: `exact` keeps the edge of bidirectional attention, where every query needs the keys and values of
    all blocks; `published` takes blocks as independent, which the latency that X-Former reports implies.
    """

    kind: Literal["sequence_blocking"] = "sequence_blocking"
    block: Count = 64
    dependencies: Literal["exact", "published"] = "exact"
    batching: Literal["pipelined", "serial"] = "pipelined"


Dataflow = Annotated[LayerSerial | SequenceBlocking, Field(discriminator="kind")]


def block_size(dataflow: LayerSerial | SequenceBlocking, tokens: int) -> int:
    """Tokens of a block: all of them where layers are serial."""
    return min(dataflow.block, tokens) if isinstance(dataflow, SequenceBlocking) else tokens


def joins(dataflow: LayerSerial | SequenceBlocking) -> bool:
    """Whether attention waits for the keys and values of all blocks."""
    return isinstance(dataflow, LayerSerial) or dataflow.dependencies == "exact"
