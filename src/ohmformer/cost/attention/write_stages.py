"""The stage that writes keys and values to arrays: its time by block, its energy and its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ohmformer.array.event_counter import Counts
from ohmformer.cost import array_costs
from ohmformer.cost.attention.token_places import slots_of, tokens_written
from ohmformer.cost.attention.write_lines import feature_lines, reference_lines, token_is_line, token_lines
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.designs.per_design import largest
from ohmformer.cost.engine_choice import PlacedOp
from ohmformer.cost.operands import (
    LayerContext,
    attention_unit,
    cells_written,
    windows_of,
    written_plan,
)
from ohmformer.cost.power.standing import on_powered_chips
from ohmformer.cost.stage import Stage
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import ArrayEngine
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import DynamicMatMul

MOST_COMPARED = 1_000_000
"""Maximum number of sizes of blocks for which two writes are compared."""


def write_stages(products: Sequence[PlacedOp], context: LayerContext) -> list[Stage]:
    """The write of K (or Q) and V of one attention, as at most one stage.

    K and V are written in parallel into separate arrays, so the stage takes as long as the slower of the two. Each is
    written one line of every array at a time. Where a token is a line, its lines follow one another. Otherwise a line
    is one feature of all tokens, so a block takes as many lines as features, however few tokens it has. Tokens beyond
    the lines of one array are written to other arrays at the same time, unless there are cells for fewer tokens, which
    then take turns, each as long as if it were the only one. Attention windows of a sample also take turns.

    Args:
        products: Q K^T and P V.
        context: what prices them.

    Returns:
        The stage, or [] if nothing is written: operands are not in cells, or have no new tokens.
    """
    writes = []
    for placed in products:
        op, engine = placed.op, placed.engine
        if not isinstance(op, DynamicMatMul) or not isinstance(engine, ArrayEngine):
            continue
        count = tokens_written(op, engine, placed.digital, shared=placed.shared)
        cells = written_plan(op, engine, placed.array, placed.max_code, count)
        if cells is None:
            continue
        _check_side(op, engine)
        number = cells_written(op, engine, cells, shared=placed.shared)
        cost = array_costs.write_cost(cells, placed.role, cells=number, lines=engine.write_lines)
        energy = {name: value * op.batch for name, value in cost.energy.items()}
        counts = _events(cells, op.batch * number)
        stage = Stage("write", "attention", attention_unit(op, "write"), placed.shared, energy=energy, counts=counts)
        sizes = count, slots_of(op, engine, placed.digital), windows_of(op, context.batch)
        written = _Written(*sizes, cost.interval, number < cells.cells)
        timed = _timed_by_token if token_is_line(op, engine) else _timed_by_feature
        writes.append(timed(stage, op, engine, written, context.tokens))
    if not writes:
        return []
    both = replace(
        _slower(writes[0], writes[-1], context.tokens),
        shared=any(stage.shared for stage in writes),
        energy=sum_by_name(*(stage.energy for stage in writes)),
        counts=sum((stage.counts for stage in writes[1:]), writes[0].counts),
    )
    return [on_powered_chips(both, products, context)]


def _check_side(op: DynamicMatMul, engine: ArrayEngine) -> None:
    """Refuse to write P.

    Raises:
        BadInput: P would be written in place of V.
    """
    if engine.written == "left" and op.role == "attention.value":
        raise BadInput(
            "hardware.attention.value.written = 'left': P would be written for every query, which has no price; "
            "take 'right', so that V is written"
        )


def _slower(one: Stage, other: Stage, tokens: int) -> Stage:
    """The stage `other` with the times of two writes at the same time.

    If they take turns of different lengths and neither is the slower one for every size of a block, blocks take equal
    shares of the slower one.
    """
    floor, per_token = largest(one.floor, other.floor), largest(one.per_token, other.per_token)
    if one.turn == other.turn:
        most = min(tokens, other.turn)
        other_decides = other.cap >= most and (one.cap >= most or other.per_token >= one.per_token)
        if one.per_token == 0 or one.cap == other.cap or other_decides:
            return replace(other, floor=floor, per_token=per_token)
        if other.per_token == 0:
            return replace(other, floor=floor, per_token=per_token, cap=one.cap)
    if tokens <= MOST_COMPARED:
        sizes = np.arange(1, tokens + 1)
        times, others = _times(one, sizes), _times(other, sizes)
        if bool(np.all(times <= others)):
            return other
        if bool(np.all(times >= others)):
            return one
    slower = max(one.time(tokens), other.time(tokens))
    return replace(other, floor=floor, per_token=slower / tokens, cap=inf, turn=inf)


def _times(stage: Stage, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Times of blocks of N sizes in a write stage [N] [s]."""
    turn = np.minimum(stage.turn, sizes)
    before = np.ceil(sizes / turn) - 1
    whole, last = (
        np.maximum(stage.floor, stage.per_token * np.minimum(n, stage.cap)) for n in (turn, sizes - before * turn)
    )
    found: npt.NDArray[np.float64] = before * whole + last
    return found


def _events(plan: Plan, cells: int) -> Counts:
    """The events of writing a number of cells of a plan, with the read-backs of residual writing."""
    if plan.array.residual is None:
        return Counts(cell_writes=cells)
    reads = cells * (plan.slices - 1) // plan.slices
    return Counts(cells, cell_reads=reads, adc_conversions=round(reads * plan.array.column_circuits))


class _Written(NamedTuple):
    """What a write stage writes: tokens per sample and window, tokens that cells can hold, windows per sample, seconds
    per line, and whether tokens are appended to a cache."""

    tokens: int
    slots: int
    windows: float
    line: float
    appended: bool


def _timed_by_token(stage: Stage, op: DynamicMatMul, engine: ArrayEngine, written: _Written, tokens: int) -> Stage:
    """The write stage with its times, if a line is a token."""
    count, slots, windows, line, appended = written
    lines = token_lines(op, engine)
    reference = reference_lines(op, engine, appended=appended)
    if count > slots and (windows > 1 or count != tokens):  # a cache that is written again, or windows
        whole, rest = divmod(count, slots)
        in_turn = whole * (min(slots, lines) + reference) + min(rest, lines) + (reference if rest else 0)
        return replace(stage, floor=0.0, per_token=in_turn * line * windows / tokens)
    turn = slots if count > slots else inf
    lines_per_token = count * windows / tokens
    cap = windows * lines / lines_per_token
    if reference:  # each array has one, beside at most `lines` tokens
        lines_per_token *= 1 + reference / min(count, slots, lines)
    return replace(stage, per_token=line * lines_per_token, cap=cap, turn=turn)


def _timed_by_feature(stage: Stage, op: DynamicMatMul, engine: ArrayEngine, written: _Written, tokens: int) -> Stage:
    """The write stage with its times, if a line is a feature."""
    count, slots, windows, line, _ = written
    features = feature_lines(op, engine) * line
    if count > slots and (windows > 1 or count != tokens):
        return replace(stage, floor=features, per_token=features * ceil(count / slots) * windows / tokens)
    per_token = features * windows / tokens if windows > 1 else 0.0
    return replace(stage, floor=features, per_token=per_token, turn=slots if count > slots else inf)
