"""Ages of keys and values over a request: the prefill writes those of the prompt, every step those of one token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ohmformer.dataflow.retention.pass_ages import (
    NEVER,
    Array,
    StoredOperand,
    leaving_windows,
    pass_ages,
    stored_operands,
    with_pauses,
)
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.ages import Ages, CellWrites, OperandAges

if TYPE_CHECKING:
    from ohmformer.dataflow.serving.served import Served


def request_ages(served: Served, request: int) -> Ages:
    """The ages of one request of a batch, in which times count from the start of the prefill.

    In arrays that layers share, every step writes the whole cache again before it reads.

    Raises:
        BadInput: there is no such request, or see `pass_ages`.
    """
    batch = served.passes.batch
    if type(request) is not int or not 0 <= request < batch:
        raise BadInput(f"ages: request = {shown(request)}: must be a whole number from 0 to {batch - 1}; correct it")
    prefill = served.timeline()
    first = pass_ages(prefill.timed_pass, request, prefill.pauses, prefill.latency, windows=False)
    writes = tuple(CellWrites(entry.role, most, mean, served.latency) for entry, most, mean in served.writes)
    conditioned = {stored.op.name: stored.conditioning for _, stored in stored_operands(prefill.placement)}
    if served.decoding is None:
        operands = [leaving_windows(operand, conditioned[operand.name]) for operand in first.operands]
        return _by_clock(Ages(tuple(operands), writes, served.latency, request), served)
    starts = served.prefill_work + np.concatenate([[0.0], np.cumsum(served.decoding.latencies)[:-1]])
    ends = served.decoding.job_ends(request)
    later = {stored.op.name: (layer, stored) for layer, stored in stored_operands(served.decoding.prices.last)}
    operands = []
    for operand in first.operands:
        if operand.name in later:
            layer, stored = later.pop(operand.name)
            read = starts + ends[layer, stored.read]
            write = starts + ends[layer, stored.write] if stored.write is not None else None
            operand = _continued(operand, stored, read, write)
        operands.append(leaving_windows(operand, conditioned[operand.name]))
    if later:
        raise BadInput(
            f"ages: {shown(next(iter(later)))} is an operand of the steps alone; give workloads of one model"
        )
    return _by_clock(Ages(tuple(operands), writes, served.latency, request), served)


def _by_clock(ages: Ages, served: Served) -> Ages:
    """Ages in time of computing, by the clock and with refreshes."""
    pauses = served.pauses_until(len(served.step_latency))
    if pauses is None:
        return ages
    return replace(ages, operands=tuple(with_pauses(operand, pauses) for operand in ages.operands))


def _continued(operand: OperandAges, stored: StoredOperand, read: Array, write: Array | None) -> OperandAges:
    """The times of an operand with those of the decoding steps.

    Args:
        operand: its times in the prefill.
        stored: the operand in a decoding step.
        read: [N], when each step has read it [s].
        write: [N], when each step has written [s]; None if it writes nothing.
    """
    anew = write is not None and (stored.shared or stored.holds_queries)
    rewritten = write if anew and write is not None else np.full(len(read), NEVER)
    written = operand.written
    if stored.op.written and not stored.op.across:
        new = np.full(len(read), NEVER) if stored.holds_queries or write is None else write
        written = np.concatenate([written, new])
    reads, again = np.concatenate([operand.read, read]), np.concatenate([operand.rewritten, rewritten])
    return replace(operand, written=written, read=reads, rewritten=again)
