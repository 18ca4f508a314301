"""One product of an array whose drivers and converters are not ideal, written from the formulas alone, in NumPy."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Draws = np.ndarray


@dataclass(frozen=True)
class Circuit:
    """Everything that decides the distribution of a product; conductances in steps above G_min."""

    rows: int = 6
    bits_per_cell: int = 2
    slices: int = 2
    encoding: str = "differential"
    subtract: str = "digital"
    kind: str = "bit_serial"
    input_bits: int = 4
    signed: bool = False
    groups: tuple[int, ...] = ()
    weighting: str = "charge"
    input_noise: float = 0.0
    output_noise: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    ratio: float = 0.0
    """Read voltage over V_0; 0 for cells with a linear current."""
    read_sigma: float = 0.0
    """Standard deviation of one read, in steps."""
    adc_bits: int | None = None
    span: tuple[float, float] = (0.0, 1.0)
    rest: dict[str, Any] = field(default_factory=dict)


def conversions(x: np.ndarray, c: Circuit) -> list[tuple[int, list[tuple[int, int, np.ndarray, int]]]]:
    """(weight of the result, [(charge weight, reads, what is applied, largest)]) of each conversion."""
    if c.kind == "amplitude":
        return [(1, [(1, 1, x, 2 ** (c.input_bits - c.signed) - 1)])]
    if c.kind == "bit_serial":
        bits = [(x >> z) & 1 for z in range(c.input_bits)]
        weights = [2**z for z in range(c.input_bits)]
        if c.signed:
            weights[-1] *= -1
        return [(w, [(1, 1, b, 1)]) for w, b in zip(weights, bits, strict=True)]
    found, first = [], 0
    for size in c.groups:
        pulses = [((abs(x) >> (first + k)) & 1) * np.sign(x) for k in range(size)]
        reads = [1 if c.weighting == "charge" else 2**k for k in range(size)]
        found.append((2**first, [(2**k, reads[k], pulses[k], 1) for k in range(size)]))
        first += size
    return found


def converted(current: Draws, c: Circuit, rng: np.random.Generator, errors: tuple[Draws, Draws]) -> Draws:
    low, high = c.span
    width = high - low
    y = current * (1 + errors[0]) + width * errors[1] + width * c.output_noise * rng.standard_normal(current.shape)
    if c.adc_bits is None:
        return y
    around_zero = low < 0 < high and c.adc_bits > 1
    step = max(1.0, width / (2**c.adc_bits - (2 if around_zero else 1)))
    zero = 0.0 if around_zero else low
    return np.clip(np.round((y - zero) / step), round((low - zero) / step), round((high - zero) / step)) * step + zero


def product(x: np.ndarray, w: np.ndarray, c: Circuit, n: int, seed: int) -> Draws:
    """n independent draws (other noise, another chip) of the sum of x w, in codes times input units."""
    rng = np.random.default_rng(seed)
    base, total = 2**c.bits_per_cell, np.zeros(n)
    if c.encoding == "differential":
        sides = [np.maximum(w, 0), np.maximum(-w, 0)]
    else:
        shift = 2 ** (c.slices * c.bits_per_cell - 1)
        sides = [w + shift, np.full_like(w, shift)]
    noise = {}
    for z, (_, pulses) in enumerate(conversions(x, c)):  # one driver feeds all arrays
        for k, (_, _, applied, largest) in enumerate(pulses):
            volts = applied + c.input_noise * largest * rng.standard_normal((n, len(x))) * (applied != 0)
            if c.ratio:
                volts = largest * np.sinh(c.ratio * volts / largest) / np.sinh(c.ratio)
            noise[z, k] = volts
    for first in range(0, len(x), c.rows):
        block = slice(first, first + c.rows)
        if not x[block].any():
            continue
        for s in range(c.slices):
            errors = [(c.gain * rng.standard_normal(n), c.offset * rng.standard_normal(n)) for _ in sides]
            digits = [side[block] // base**s % base for side in sides]
            for z, (weight, pulses) in enumerate(conversions(x, c)):
                currents = []
                for digit in digits:
                    current = np.zeros(n)
                    for k, (charge, reads, _, _) in enumerate(pulses):
                        held = digit + c.read_sigma / np.sqrt(reads) * rng.standard_normal((n, len(digit)))
                        current += charge * (noise[z, k][:, block] * held).sum(axis=1)
                    currents.append(current)
                if c.subtract == "analog":
                    result = converted(currents[0] - currents[1], c, rng, errors[0])
                else:
                    plus, minus = (converted(i, c, rng, e) for i, e in zip(currents, errors, strict=True))
                    result = plus - minus
                total += weight * base**s * result
    return total
