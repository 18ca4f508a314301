"""What row drivers apply at the `cell` level of fidelity: every pulse on its own.

Shapes: M input vectors, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sinh

import torch
from torch import Tensor

from ohmformer.array.peripherals.drivers import undistorted
from ohmformer.array.peripherals.read_keys import of_one_input
from ohmformer.array.peripherals.spec import distorts
from ohmformer.array.spec import Crossbar
from ohmformer.streams import Streams

Pulse = tuple[int, int, Tensor]
"""Weight of the charge of a pulse, number of reads that add it, and what is applied [..., M, I]."""


def drive(plane: Tensor, array: Crossbar, z: int, *, signed: bool, streams: Sequence[Streams] | None) -> list[Pulse]:
    """Return the pulses whose charge one conversion takes.

    Args:
        plane: [..., M, I] what is to be applied for conversion z, see `encoding.bit_planes`.
        array: the hardware.
        z: number of the conversion of an input vector.
        signed: True if inputs have both signs.
        streams: key of the noise of each vector; None for drivers without noise.
    """
    if array.inputs.kind != "integrated":
        return [(1, 1, _voltages(plane, array, 0, signed=signed, streams=streams))]
    pulses = []
    for k in range(array.inputs.group_sizes[z]):
        bit = (plane.abs() / 2**k).floor() % 2 * plane.sign()
        reads = 1 if array.inputs.weighting == "charge" else 2**k
        pulses.append((2**k, reads, _voltages(bit, array, k, signed=signed, streams=streams)))
    return pulses


def _voltages(codes: Tensor, array: Crossbar, pulse: int, *, signed: bool, streams: Sequence[Streams] | None) -> Tensor:
    """Return what one pulse applies for codes [..., M, I]: voltages with noise, behind the curve of the cells."""
    parts, amplitude = array.peripherals, array.inputs.kind == "amplitude"
    top = array.max_input(signed=signed) if amplitude else 1
    voltages = undistorted(codes, array, signed=signed) if distorts(array) else codes
    if parts.input_noise and streams is not None:
        *lead, _, inputs = codes.shape
        keys = [of_one_input(stream.child("input", pulse)) for stream in streams]
        drawn = [key.normal(*lead, 1, inputs, like=codes) for key in keys]
        eps = torch.cat(drawn, dim=-2) if drawn else torch.empty_like(codes)
        voltages = torch.where(codes != 0, voltages + parts.input_noise * top * eps, voltages)
    if not distorts(array):
        return voltages
    assert parts.read_voltage is not None
    assert array.cell.sinh_voltage is not None
    v_r, v_0 = parts.read_voltage, array.cell.sinh_voltage
    return top * (v_r * voltages / (top * v_0)).sinh() / sinh(v_r / v_0)
