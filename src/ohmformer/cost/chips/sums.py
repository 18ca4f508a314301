"""Sums over all chips of a system: what lives in their memories, their refresh, and the bytes on their links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ohmformer.cost.chips.exchange import bytes_sent
from ohmformer.cost.cost import sum_by_name
from ohmformer.cost.machine.refresh import Refresh, refresh_of
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.tiles import KVArrays
from ohmformer.hardware.refresh import refresh_interval
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.spec import Exchange, Workload


def homes_of_chips(groups: Sequence[Homes], sharing: Sequence[int]) -> Homes:
    """What lives in the memories of all chips together.

    Args:
        groups: for each group of chips, what lives in the memories of one of its chips.
        sharing: for each group, the number of its chips.
    """
    memory = next((each.memory for each in groups if each.memory is not None), None)
    return Homes(
        _sum((each.on_chip for each in groups), sharing),
        _sum((each.off_chip for each in groups), sharing),
        groups[0].phase,
        memory,
        sum(times * each.tiles for each, times in zip(groups, sharing, strict=True)),
    )


def _sum(parts: Iterable[Mapping[str, float]], times: Sequence[int]) -> dict[str, float]:
    """Sum of numbers by name, each part taken several times."""
    pairs = zip(parts, times, strict=True)
    return sum_by_name(*({name: count * value for name, value in part.items()} for part, count in pairs))


def refresh_of_chips(
    workload: Workload, groups: Sequence[tuple[list[KVArrays], Homes]], hardware: Accelerator, sharing: Sequence[int]
) -> Refresh | None:
    """The refresh of all chips, which refresh at the same time; None if cells keep their values.

    Args:
        workload: phase and batch.
        groups: for each group of chips, the arrays of K and V of one of its chips, and what lives in its memories.
        hardware: the accelerator.
        sharing: for each group, the number of its chips.

    Raises:
        BadInput: see `refresh_of`.
    """
    if refresh_interval(hardware.attention) is None:
        return None
    with_cells = [pair for pair in zip(groups, sharing, strict=True) if pair[0][0]] or [(groups[0], 1)]
    found = [(refresh_of(workload, kv, hardware, homes), times) for (kv, homes), times in with_cells]
    kinds = [(refresh, times) for refresh, times in found if refresh is not None]
    if not kinds or kinds == [(kinds[0][0], 1)]:
        return kinds[0][0] if kinds else None
    return replace(
        kinds[0][0],
        seconds=max(refresh.seconds for refresh, _ in kinds),
        energy=_sum((refresh.energy for refresh, _ in kinds), [times for _, times in kinds]),
        cell_writes=sum(times * refresh.cell_writes for refresh, times in kinds),
        static=sum(times * refresh.static for refresh, times in kinds),
    )


def bytes_on_links(workload: Workload, hardware: Accelerator) -> float:
    """Bytes that all chips send, for all samples.

    Args:
        workload: what each chip computes, with exchanges (`Layout.workload`).
        hardware: the accelerator.
    """
    return sum(op.chips * bytes_sent(op, hardware.value_bytes) for op in workload.ops if isinstance(op, Exchange))
