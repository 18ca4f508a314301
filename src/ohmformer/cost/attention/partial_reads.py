"""Reads of arrays by causal products: columns, rows and arrays of keys that a query does not see take no part.

Where K is stored, a query converts the columns of the keys up to its own. Where Q is stored, a key converts the columns
of the queries from its own on. Where V is stored, a query drives the rows of the keys that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from ohmformer.array.event_counter import Counts
from ohmformer.array.spec import Crossbar
from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, PerQueryCost
from ohmformer.cost.designs.per_design import largest, rounded_down, smallest
from ohmformer.cost.scaled_array_prices import array_cost, priced
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import DynamicMatMul


@dataclass(frozen=True)
class PartialReads:
    """Events of all queries of all samples.

    Attributes:
        counts: reads, accesses of arrays, and conversions.
        rows: how often a row of an array is driven.
    """

    counts: Counts
    rows: int


def partial_reads(op: DynamicMatMul, matrices: Plan, seen: KeysPerQuery, most: float, *, left: bool) -> PartialReads:
    """The events of a causal product.

    Args:
        op: the product.
        matrices: the matrices of one sample.
        seen: the keys that queries see.
        most: number of tokens that have cells.
        left: True if Q is stored instead of K.
    """
    array = matrices.array
    heads = op.batch * (1 if left else op.group)
    if op.role == "attention.value":
        keys, blocks = heads * seen.blocks(1, most), heads * seen.blocks(array.rows, most)
        return _rows_in_part(matrices, keys, blocks)
    scores = heads * seen.blocks(1, most)
    blocks = heads * (_query_blocks(seen, array.columns) if left else seen.blocks(array.columns, most))
    return _columns_in_part(matrices, scores, blocks)


def _query_blocks(seen: KeysPerQuery, columns: int) -> int:
    """Sum over all keys of the blocks of columns that hold queries from the key on."""
    cached, whole = seen.first - 1, ceil(seen.queries / columns)
    before = KeysPerQuery(1, seen.queries, 1).blocks(columns) - seen.queries
    return (cached + seen.queries) * whole - before


def _columns_in_part(matrices: Plan, columns: int, blocks: int) -> PartialReads:
    """Events if `columns` columns, in `blocks` blocks of columns, of each matrix are used; sums over all vectors."""
    array, cycles = matrices.array, matrices.array.cycles()
    copies = matrices.matrices * matrices.slices
    reference = copies * blocks if array.encoding == "offset" else 0
    halves = 2 if array.encoding == "differential" and array.subtract != "analog" else 1
    converted = copies * columns * halves + (0 if array.subtract == "analog" else reference)
    arrays = copies * array.polarities * blocks
    counts = Counts(
        cell_reads=cycles * matrices.inputs * (copies * array.polarities * columns + reference),
        activations=cycles * matrices.row_blocks * arrays,
        adc_conversions=array.conversions() * matrices.row_blocks * converted,
    )
    return PartialReads(counts, cycles * matrices.inputs * arrays)


def _rows_in_part(matrices: Plan, rows: int, blocks: int) -> PartialReads:
    """Events if `rows` rows, in `blocks` blocks of rows, of each matrix are used; sums over all vectors."""
    array, one = matrices.array, matrices.reads(1)
    cycles = array.cycles()
    arrays = matrices.matrices * matrices.slices * array.polarities * matrices.column_blocks
    counts = Counts(
        cell_reads=one.cell_reads // matrices.inputs * rows,
        activations=cycles * arrays * blocks,
        adc_conversions=one.adc_conversions // matrices.row_blocks * blocks,
    )
    return PartialReads(counts, cycles * arrays * rows)


def key_read_times(array: Crossbar, role: str, slots: float, most: float = inf) -> tuple[PerQueryCost, ...]:
    """Time in which an array multiplies a query by the keys that it sees [s]: parts, the slowest of which counts.

    A converter that columns share converts those of keys alone. Tokens beyond `slots` take turns.

    Args:
        array: the array.
        role: role of its engine, for messages.
        slots: number of tokens that have cells at the same time.
        most: number of tokens that have cells.
    """
    read, convert, in_turn = _read_and_convert(array, role)
    shared = min(array.adc.columns_per_adc, array.columns, slots)
    of_first_keys, of_groups = KeyTerm(convert, 1, min(shared, most)), KeyTerm(convert * shared, slots, most)
    converting = PerQueryCost(-convert * shared, (of_first_keys, of_groups))
    reading = PerQueryCost(0.0, (KeyTerm(read, slots, most),))
    return (reading + converting,) if in_turn else (reading, converting)


def _read_and_convert(array: Crossbar, role: str) -> tuple[float, float, bool]:
    """Time of the reads of one input vector [s], of the conversions of one column [s], and whether these follow."""
    prices, integrated = priced(array, role), array.inputs.kind == "integrated"
    reads = conversions = 1 if array_cost(array, role).timing == "one_access" else array.cycles()
    if array.inputs.kind == "integrated":
        reads, conversions = array.inputs.reads, array.inputs.phases
    return reads * prices.read_time, conversions * prices.adc_time, integrated


def query_read_time(array: Crossbar, role: str, slots: int, seen: KeysPerQuery) -> float:
    """Time in which an array that stores Q multiplies all queries of a head by the keys that they see [s].

    Queries take turns in the cells. In a turn, the keys up to its last query pass through the array, one after another,
    and each is converted for the queries of the turn that see it.

    Args:
        array: the array.
        role: role of its engine, for messages.
        slots: number of queries that have cells at the same time.
        seen: the keys that queries see.
    """
    read, convert, in_turn = _read_and_convert(array, role)
    shared = min(array.adc.columns_per_adc, array.columns, slots)
    turns, rest = divmod(seen.queries, slots)
    total = 0.0
    for size, count, before in ((slots, turns, slots * turns * (turns - 1) // 2), (rest, min(rest, 1), slots * turns)):
        if count:
            most = min(size, shared)  # columns that the busiest converter converts for a key that all queries see
            whole = read + convert * most if in_turn else largest(read, convert * most)
            fewer = min(size - 1, shared)  # keys that 1, 2, ... queries of the turn see
            hidden = (
                0 if in_turn else smallest(fewer, rounded_down(read / convert)) if convert else fewer
            )  # by the read
            rising = convert * (fewer * (fewer + 1) - hidden * (hidden + 1)) / 2
            total += (count * (seen.first + size - 1 - fewer) + before) * whole
            total += count * (read * (fewer if in_turn else hidden) + rising)
    return total
