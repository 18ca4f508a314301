"""Consecutive layers in a given number of groups, with as many weights as possible alike in each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate

Group = tuple[int, int, int]
"""Position of the first layer, position after the last layer, and number of chips."""


def even_ends(sizes: Sequence[int], groups: int) -> tuple[int, ...]:
    """For each group, the position after its last layer.

    Args:
        sizes: number of weights of each layer.
        groups: number of groups, at most that of layers with weights.
    """
    sums = [0, *accumulate(sizes)]
    full = _full_from(sizes)
    ends: list[int] = []
    for left in range(groups, 1, -1):
        first = ends[-1] if ends else 0
        goal = sums[first] + (sums[-1] - sums[first]) / left
        end = first + 1
        while full[end + 1] >= left - 1:
            if sums[end] > sums[first] and abs(sums[end + 1] - goal) > abs(sums[end] - goal):
                break
            end += 1
        ends.append(end)
    return (*ends, len(sizes))


def divided_further(groups: Sequence[Group], sizes: Sequence[int], times: int) -> list[Group]:
    """The groups, of which the one with most weights is divided in two, several times; fewer if none can be divided.

    Args:
        groups: the groups.
        sizes: number of weights of each layer.
        times: how often.
    """
    sums, full = [0, *accumulate(sizes)], _full_from(sizes)
    queue = [(sums[first] - sums[end], first, end, chips) for first, end, chips in groups]
    heapify(queue)
    done: list[Group] = []
    while queue and times:
        _, first, end, chips = heappop(queue)
        cut = bisect_left(sums, (sums[first] + sums[end]) / 2, first + 1, end)
        while cut > first + 1 and full[cut] == full[end]:
            cut -= 1
        if cut >= end or full[cut] == full[end] or full[first] == full[cut]:
            done.append((first, end, chips))
            continue
        times -= 1
        for part in ((first, cut), (cut, end)):
            heappush(queue, (sums[part[0]] - sums[part[1]], *part, chips))
    return sorted([*done, *((first, end, chips) for _, first, end, chips in queue)])


def _full_from(sizes: Sequence[int]) -> list[int]:
    """For each position, the number of layers with weights from there on."""
    counts = [0, 0]
    for size in reversed(sizes):
        counts.append(counts[-1] + (size > 0))
    return counts[:0:-1] + [0]
