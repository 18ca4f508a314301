"""What row drivers apply for input codes: distorted by the cells' current-voltage curve, and with noise.

Shapes: M input vectors, I inputs, Z conversions of one input vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.peripherals.read_keys import of_inputs
from ohmformer.array.peripherals.spec import distorts
from ohmformer.array.spec import Crossbar
from ohmformer.streams import Streams

Draw = Callable[[int], Tensor]
"""Standard normals of the shape of the inputs, by the number of the pulse."""


def plain(array: Crossbar) -> bool:
    """True if what drivers apply are the input codes or their bits, without noise."""
    return not array.peripherals.input_noise and not distorts(array) and array.inputs.kind != "integrated"


def driven(codes: Tensor, array: Crossbar, *, signed: bool, stream: Streams | None) -> tuple[Tensor, Tensor, list[int]]:
    """Return what drivers apply for each conversion, in input units.

    Args:
        codes: integer inputs [..., M, I].
        array: the hardware.
        signed: True if inputs have both signs.
        stream: key of the noise of reads; None for drivers without noise.

    Returns:
        What is applied [Z, ..., M, I], the sum of all pulses of a conversion; the factor [Z, ..., M, I] on the read
        variance of a cell; and Z weights of the results.
    """
    planes, weights = encoding.bit_planes(codes, array, signed=signed)
    sigma = 0.0 if stream is None else array.peripherals.input_noise
    source = of_inputs(stream)

    def draw(pulse: int) -> Tensor:
        assert source is not None
        return source.child("input", pulse).normal(*codes.shape, like=codes)

    if array.inputs.kind == "integrated":
        applied, power = _integrated(planes, array, sigma, draw)
        return applied, power, weights
    if array.inputs.kind == "bit_serial":
        if sigma:
            planes = torch.stack([plane * (1 + sigma * draw(z)) for z, plane in enumerate(planes)])
        return planes, planes.square() if sigma else planes, weights
    voltages = planes if not distorts(array) else undistorted(planes, array, signed=signed)
    if sigma:
        voltages = voltages + sigma * array.max_input(signed=signed) * draw(0) * (planes != 0)
    applied = voltages if not distorts(array) else distorted(voltages, array, signed=signed)
    return applied, applied.square(), weights


def folded_inputs(codes: Tensor, array: Crossbar, *, signed: bool, stream: Streams | None) -> tuple[Tensor, Tensor]:
    """Return what all conversions of an input apply together, and the factor on the read variance: each [..., M, I].

    Args:
        codes: inputs [..., M, I].
        array: the hardware.
        signed: as in `driven`.
        stream: as in `driven`.
    """
    applied, power, weights = driven(codes, array, signed=signed, stream=stream)
    if len(weights) == 1:
        return applied[0], power[0]
    weight = applied.new_tensor(weights).reshape(-1, *(1,) * codes.dim())
    return (applied * weight).sum(0), (power * weight.square()).sum(0)


def _integrated(planes: Tensor, array: Crossbar, sigma: float, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return the charge of all pulses of each group of bits, and the factor on the read variance.

    A pulse of weight 2^k has noise of its own. Its cells are read once if the circuit weighs the charge, so that the
    variance has the factor 4^k; they are read 2^k times if the charge is added 2^k times, with the factor 2^k.
    """
    assert array.inputs.kind == "integrated"
    applied, power, first = torch.zeros_like(planes), torch.zeros_like(planes), 0
    for z, size in enumerate(array.inputs.group_sizes):
        sign, rest = planes[z].sign(), planes[z].abs()
        for k in range(size):
            half = (rest / 2).floor_()
            pulse = (rest - 2 * half) * sign
            if sigma:
                pulse = pulse * (1 + sigma * draw(first + k))
            applied[z] += 2**k * pulse
            power[z] += (4**k if array.inputs.weighting == "charge" else 2**k) * pulse.square()
            rest = half
        first += size
    return applied, power


def _scales(array: Crossbar, *, signed: bool) -> tuple[float, int]:
    """Return the read voltage as a multiple of V_0, and the largest input code."""
    parts = array.peripherals
    assert parts.read_voltage is not None
    assert array.cell.sinh_voltage is not None
    return parts.read_voltage / array.cell.sinh_voltage, array.max_input(signed=signed)


def distorted(voltages: Tensor, array: Crossbar, *, signed: bool) -> Tensor:
    """Return the inputs to which the currents of cells are in proportion.

    A cell has the current G V_r sinh(V / V_0) / sinh(V_r / V_0), where G is its conductance at the read voltage V_r.

    Args:
        voltages: in input units, where the largest input is V_r.
        array: the hardware.
        signed: True if inputs have both signs.
    """
    ratio, top = _scales(array, signed=signed)
    return (voltages * (ratio / top)).sinh().mul_(top / math.sinh(ratio))


def undistorted(codes: Tensor, array: Crossbar, *, signed: bool) -> Tensor:
    """Return the voltages that drivers take for codes, in input units: the codes, or their nearest predistorted levels.

    Args:
        codes: integer inputs.
        array: the hardware.
        signed: True if inputs have both signs.
    """
    if not array.peripherals.predistorted:
        return codes
    ratio, top = _scales(array, signed=signed)
    exact = (codes * (math.sinh(ratio) / top)).asinh().mul_(top / ratio)
    low, high = exact.floor(), exact.ceil()
    miss = [(distorted(level, array, signed=signed) - codes).abs() for level in (low, high)]
    return torch.where(miss[0] <= miss[1], low, high)
