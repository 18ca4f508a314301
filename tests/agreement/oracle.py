"""An implementation of the same physics that shares no code with the package: NumPy, siemens, one device at a time.

Written from the equations alone: values to conductances, write noise, currents by Ohm's law, converters, shift and add.
It is asked to use the same random numbers, so that its results can be compared digit by digit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Normal = Callable[..., float]
"""eps(...): the standard normal that belongs to a device."""


@dataclass(frozen=True)
class Machine:
    """Everything that decides the answer, in SI units."""

    rows: int
    columns: int
    bits: int
    bits_per_cell: int
    encoding: str
    g_min: float
    g_max: float
    write: dict[str, Any]
    read: dict[str, Any]
    streaming: str
    input_bits: int
    signed: bool
    adc_bits: int | None
    subtract: str
    radix: int | None = None
    redundancy: int = 1

    @property
    def step(self) -> float:
        return (self.g_max - self.g_min) / (2**self.bits_per_cell - 1)

    @property
    def slices(self) -> int:
        return math.ceil(self.bits / self.bits_per_cell)

    @property
    def cells(self) -> list[int]:
        """By cell of a value: the slice whose digit it holds."""
        return [s for s in range(self.slices) for _ in range(self.redundancy)]

    @property
    def places(self) -> list[int]:
        """What each slice counts."""
        base = self.radix or 2**self.bits_per_cell
        return [base**s for s in range(self.slices)]

    @property
    def top(self) -> int:
        """The largest integer that can be stored."""
        if self.radix is not None:
            return (2**self.bits_per_cell - 1) * sum(self.places)
        return 2**self.bits - 1 if self.encoding == "differential" else 2 ** (self.bits - 1) - 1


def write_std(g: float, m: Machine) -> float:
    noise, span = m.write, m.g_max - m.g_min
    match noise["kind"]:
        case "none":
            return 0.0
        case "sqrt_range":
            return noise["gamma"] * noise["sigma"] * math.sqrt(max(g - m.g_min, 0.0) * span)
        case "proportional":
            return noise["sigma"] * g
        case "uniform":
            return noise["sigma"] * span
        case "polynomial":
            x = g / m.g_max
            return m.g_max / noise["g_ref"] * (noise["c0"] + noise["c1"] * x + noise["c2"] * x**2)
        case "piecewise_polynomial":
            piece = sum(1 for border in noise["borders"] if g / m.g_max >= border / noise["g_ref"])
            terms = [c * (g / m.g_max) ** power for power, c in enumerate(noise["coefficients"][piece])]
            return m.g_max / noise["g_ref"] * sum(terms)
        case "table":
            return float(np.interp(g, noise["targets"], noise["std"]))
    raise AssertionError(noise)


def written(g: float, m: Machine, eps: float) -> float:
    """G' of one device."""
    if m.write["kind"] == "lognormal":
        return g * math.exp(m.write["sigma"] * eps)
    mean = float(np.interp(g, m.write["targets"], m.write["mean"])) if m.write["kind"] == "table" else g
    return max(0.0, mean + write_std(g, m) * eps)


def read(g: float, m: Machine, eps: float) -> float:
    """What one read of one device sees."""
    if m.read["kind"] == "proportional":
        return g * (1 + m.read["sigma"] * eps)
    if m.read["kind"] == "sqrt":
        return g + m.read["sigma"] * math.sqrt(abs(g) * m.g_max) * eps
    if m.read["kind"] == "uniform":
        return g + m.read["sigma"] * (m.g_max - m.g_min) * eps
    return g


def stored_integer(w: float, w_range: float, m: Machine) -> int:
    return int(min(m.top, max(-m.top, round(w / w_range * m.top))))


def value_of_one(w_range: float, m: Machine) -> float:
    return w_range / m.top


def digits(magnitude: int, m: Machine) -> list[int]:
    """One digit for each slice: dealt out in turns where slices count alike, the most significant first otherwise."""
    found = [0] * m.slices
    if m.radix == 1:
        for call_index in range(magnitude):
            found[m.slices - 1 - call_index % m.slices] += 1
        return found
    for s in reversed(range(m.slices)):
        while found[s] < 2**m.bits_per_cell - 1 and magnitude >= m.places[s]:
            found[s] += 1
            magnitude -= m.places[s]
    assert magnitude == 0
    return found


def target(code: int, polarity: int, s: int, m: Machine) -> float:
    """The conductance that slice s of a code should have."""
    if m.encoding == "differential":
        magnitude = abs(code) if (code > 0) == (polarity == 0) else 0
    else:
        magnitude = code + 2 ** (m.bits - 1)
    return m.g_min + digits(magnitude, m)[s] * m.step


def reference_target(s: int, m: Machine) -> float:
    digit = (2 ** (m.bits - 1) // 2 ** (m.bits_per_cell * s)) % 2**m.bits_per_cell
    return m.g_min + digit * m.step


def cycles(code: int, m: Machine) -> list[tuple[int, float]]:
    """(voltage, weight) of every read of one input code."""
    if m.streaming == "amplitude":
        return [(code, 1.0)]
    word = code % 2**m.input_bits
    weights = [2.0**z for z in range(m.input_bits)]
    if m.signed:
        weights[-1] *= -1
    return [((word >> z) & 1, weight) for z, weight in enumerate(weights)]


class Tie(Exception):
    """A current lies in the middle between two codes, where rounding errors decide."""


def nearest(ratio: float) -> int:
    if abs(ratio % 1 - 0.5) < 1e-9:
        raise Tie
    return round(ratio)


def converter(current: float, m: Machine) -> float:
    """A current [A at 1 V per input unit, G_min taken off] to what a full-scale converter reports."""
    if m.adc_bits is None:
        return current
    volts = 1
    if m.streaming == "amplitude":
        volts = 2 ** (m.input_bits - 1) - 1 if m.signed else 2**m.input_bits - 1
    top = m.rows * (m.g_max - m.g_min) * volts
    both_signs = m.subtract == "analog" or (m.streaming == "amplitude" and m.signed)
    if both_signs:
        lsb = max(m.step, 2 * top / (2**m.adc_bits - 2))
        edge = round(top / lsb)
        return min(edge, max(-edge, nearest(current / lsb))) * lsb
    lsb = max(m.step, top / (2**m.adc_bits - 1))
    return min(round(top / lsb), max(0, nearest(current / lsb))) * lsb


def multiply(
    x_codes: np.ndarray, w: np.ndarray, w_range: float, m: Machine, eps_write: Normal, eps_read: Normal
) -> np.ndarray:
    """Integer inputs [M, I] times the matrix w [O, I] as the machine gives it, in units of w: [M, O].

    `eps_write(what, k, polarity, o, i)` and `eps_read(m, z, k, first_row, side, o, i - first_row)`, where k counts the
    cells of a value. What the copies of a digit give is averaged.
    """
    O, I = w.shape
    codes = [[stored_integer(w[o, i], w_range, m) for i in range(I)] for o in range(O)]
    polarities = 2 if m.encoding == "differential" else 1
    cell = {
        (p, k, o, i): written(target(codes[o][i], p, s, m), m, eps_write("cell", k, p, o, i))
        for p in range(polarities) for k, s in enumerate(m.cells) for o in range(O) for i in range(I)
    }  # fmt: skip
    reference = {}
    if m.encoding == "offset":
        reference = {
            (k, c, i): written(reference_target(s, m), m, eps_write("reference", k, 0, c, i))
            for k, s in enumerate(m.cells) for c in range(math.ceil(O / m.columns)) for i in range(I)
        }  # fmt: skip
    y = np.zeros((len(x_codes), O))
    for v, vector in enumerate(x_codes):
        sent = [cycles(int(code), m) for code in vector]
        for o in range(O):
            for k, s in enumerate(m.cells):
                for z in range(len(sent[0])):
                    for first in range(0, I, m.rows):
                        rows = range(first, min(first + m.rows, I))

                        def current(side: str, conductance: Callable[[int], float], column: int) -> float:
                            total = 0.0
                            for i in rows:  # noqa: B023
                                eps = eps_read(v, z, k, first, side, column, i - first)  # noqa: B023
                                total += sent[i][z][0] * (read(conductance(i), m, eps) - m.g_min)  # noqa: B023
                            return total

                        plus = current("plus", lambda i: cell[0, k, o, i], o)  # noqa: B023
                        if m.encoding == "differential":
                            minus = current("minus", lambda i: cell[1, k, o, i], o)  # noqa: B023
                        else:
                            shared = o // m.columns
                            minus = current("minus", lambda i: reference[k, shared, i], shared)  # noqa: B023
                        if m.subtract == "analog":
                            difference = converter(plus - minus, m)
                        else:
                            difference = converter(plus, m) - converter(minus, m)
                        y[v, o] += sent[0][z][1] * m.places[s] * difference / m.step / m.redundancy
    return y * value_of_one(w_range, m)
