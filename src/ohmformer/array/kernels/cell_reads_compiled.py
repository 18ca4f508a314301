"""Currents of columns whose devices are read one by one, by a loop on the CPU that draws the noise of each on the way.

It needs numba, so nothing imports this file before a product asks for compiled kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from ohmformer.array.kernels.vectors_compiled import LANES, Vectors
from ohmformer.streams.compiling import compiled, intrinsics
from ohmformer.streams.philox_compiled import CHUNK, normals_of

f = np.float32
fused, wide = intrinsics()


@intrinsic
def add_reads(context: Any, sums: Any, applied: Any, digits: Any, spread: Any, normals: Any, places: Any) -> Any:
    """Add applied (digits + spread normals) of `LANES` devices to sums[LANES], for all whole vectors of devices.

    `places` are the number of vectors and the first places in digits (and spread) and normals; arrays are flat.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, voltage, held, std, drawn = (
            target.make_array(kind)(target, builder, value).data
            for kind, value in zip(signature.args[:5], arguments[:5], strict=True)
        )
        numbers = Vectors(builder)
        count, at, of_normal = (builder.extract_value(arguments[5], n) for n in range(3))
        place = numbers.at(total, at.type(0))
        result = cgutils.alloca_once_value(builder, numbers.load(place))
        with cgutils.for_range(builder, count) as loop:
            step = builder.mul(loop.index, at.type(LANES))
            cells = builder.add(at, step)
            noise = numbers.load(numbers.at(drawn, builder.add(of_normal, step)))
            read = numbers.fused(numbers.load(numbers.at(std, cells)), noise, numbers.load(numbers.at(held, cells)))
            current = numbers.fused(numbers.load(numbers.at(voltage, step)), read, builder.load(result))
            builder.store(current, result)
        numbers.store(builder.load(result), place)
        return target.get_dummy_value()

    return types.none(sums, applied, digits, spread, normals, places), generate


@compiled("void(float32[:,::1], float32[:,::1], float32[:,:,::1], float32[:,:,::1], int64[:,::1], int64)")
def currents(out, applied, digits, spread, rows, nth):
    """Column currents of reads, where every device has a standard normal of its own.

    Args:
        out: [V, O] currents of V input vectors, written.
        applied: [V, R] what the rows get.
        digits: [N, O, R] of N matrices, which the vectors take in turns.
        spread: standard deviation of one read of each device, likewise.
        rows: the rows of `places.Places`, whose numbers stand one after the other and fill [V, O, R].
        nth: how many tensors the source drew before.
    """
    wide()
    N, O, R = digits.shape
    most = max(4, CHUNK // R // 4 * 4)  # whole columns, and a multiple of four normals
    normals, sums = np.empty(most * R, np.float32), np.empty(LANES, f)
    held, deviations = digits.reshape(-1), spread.reshape(-1)
    for k in range(rows.shape[0]):
        column, count = rows[k, 2] // R, rows[k, 3] // R
        for begin in range(0, count, most):
            columns = min(most, count - begin)
            drawn = (columns * R + 3) // 4 * 4
            normals_of(normals, begin * R, drawn, uint32(rows[k, 1]), uint32(nth + rows[k, 6]), rows[k, 0])
            for c in range(columns):
                vector, o = (column + begin + c) // O, (column + begin + c) % O
                voltage, at, drawn_at = applied[vector], (vector % N * O + o) * R, c * R
                sums[:] = f(0)
                add_reads(sums, voltage, held, deviations, normals, (R // LANES, at, drawn_at))
                for i in range(R // LANES * LANES, R):
                    read = fused(deviations[at + i], normals[drawn_at + i], held[at + i])
                    sums[i % LANES] = fused(voltage[i], read, sums[i % LANES])
                for width in (8, 4, 2, 1):
                    for i in range(width):
                        sums[i] += sums[i + width]
                out[vector, o] = sums[0]
