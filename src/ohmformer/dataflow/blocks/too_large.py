"""The message about a run that takes too much time or memory: which number is too large, and what makes it smaller."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ohmformer.cost.placement import Placement
from ohmformer.dataflow.spec import Dataflow


def too_large(placement: Placement, dataflow: Dataflow, what: str, further: Sequence[str] = ()) -> str:
    """One line that names the batch, or the length of a single sample, and remedies that apply.

    Args:
        placement: the workload on the accelerator.
        dataflow: one in blocks.
        what: what there is too much of.
        further: further remedies.
    """
    batch, blocks = placement.workload.batch, most_blocks(placement, dataflow)
    longest = max(layer.tokens for layer in placement.layers)
    field = f"model.batch = {batch}" if batch > 1 else f"model.seq_len = {longest}"
    remedies = ["lower batch or seq_len" if batch > 1 else "lower seq_len or the number of layers"]
    remedies += [*(["raise dataflow.block"] if blocks > 1 else []), *further]
    *first, last = remedies
    return f"{field}: takes {what}; {', '.join(first)}{', or ' if first else ''}{last}"


def most_blocks(placement: Placement, dataflow: Dataflow) -> int:
    """The largest number of blocks of a sample in a layer."""
    lengths = {layer.tokens for layer in placement.layers}
    return max(ceil(tokens / dataflow.size_of_block(tokens)) for tokens in lengths)
