"""How energy, time and area of an analog-to-digital converter follow its bits and its rate.

A law has absolute figures of its own, which `ohmformer show` sets beside the published ones. A published converter is
scaled by the ratio of a law's figures, so it stays exact at its own resolution and rate. Factors that do not depend on
the resolution cancel in the ratio, such as the square of the supply voltage. b bits, f conversions per second.
"""

from __future__ import annotations

from abc import abstractmethod
from math import exp, log
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from ohmformer.errors import BadInput, shown
from ohmformer.quantities import ConversionRate, Nanometers, Volts
from ohmformer.registry import Family, called, register


class Converter(NamedTuple):
    """Figures of one converter.

    Attributes:
        energy: of one conversion [J].
        time: of one conversion [s].
        area: of the converter [m^2].
    """

    energy: float
    time: float
    area: float


def _comparisons_and_noise(comparisons: float, bits: int, voltage: float) -> float:
    """Energy of a conversion [J]: 100 fF V^2 for each comparison, and 0.001 4^b fF V^2 against thermal noise."""
    return (100.0 * comparisons + 0.001 * 4.0**bits) * 1e-15 * voltage**2


def _capacitor_area(bits: int) -> float:
    """Area of comparator, logic and capacitor array [m^2]: 81.7 b + 2.134 2^b um^2, see `Sar`."""
    return (81.7 * bits + 2.134 * 2.0**bits) * 1e-12


class AdcLaw(Family):
    """How a converter follows its bits and its rate.

    A kind defines `figures` of a converter at its own speed. By default a faster one is made of several that take
    turns (time interleaving): the same energy per conversion, and the area of all of them. A slower one saves nothing.
    """

    family: ClassVar[str] = "adc_law"

    kind: str

    @abstractmethod
    def figures(self, bits: int) -> Converter:
        """Energy, time and area of a converter of `bits` bits at its own speed."""

    def checked(self, method: Literal["figures", "scaled"], *arguments: Any) -> Converter:
        """The converter that one of these methods returns, checked.

        Raises:
            BadInput: the method fails, or returns anything but a `Converter` of numbers.
            ArithmeticError: it divides by zero or exceeds all numbers.
        """
        found = called(self, method, *arguments, passing=(ArithmeticError,))
        if not isinstance(found, Converter) or not all(isinstance(value, Real) for value in found):
            raise BadInput(
                f"{type(self).__name__}.{method}: returns {shown(found)}; return an ohmformer.Converter of numbers"
            )
        return found

    def scaled(self, published: Converter, old_bits: int, bits: int, rate: float | None = None) -> Converter:
        """A published converter with another resolution or rate.

        Args:
            published: its figures.
            old_bits: its resolution.
            bits: the new resolution.
            rate: conversions per second [Hz]; None for the converter's own speed.
        """
        found = published
        if bits != old_bits:
            old, new = self.checked("figures", old_bits), self.checked("figures", bits)
            found = Converter(*(value * (b / a) for value, a, b in zip(published, old, new, strict=True)))
        if rate is None:
            return found
        return Converter(found.energy, 1 / rate, found.area * max(1.0, rate * found.time))


@register
class Sar(AdcLaw):
    """Successive approximation: one comparison per bit, and thermal noise that costs four times as much for each bit.

    E = (100 b + 0.001 4^b) fF V^2 and t = 0.640 b ns: the kind `bit_line_sar` without the load of the bit line.
    Area = 81.7 b + 2.134 2^b um^2: the converter of ISAAC (Kull et al., ISSCC 2013, 32 nm) as CiMLoop's library scales
    it by the capacitor array of Saberi et al. (2011).
    """

    kind: Literal["sar"] = "sar"
    voltage: Annotated[Volts, Field(gt=0)] = 0.9
    """V, supply voltage [V]."""

    def figures(self, bits: int) -> Converter:
        """The equations above."""
        return Converter(_comparisons_and_noise(bits, bits, self.voltage), 0.640e-9 * bits, _capacitor_area(bits))


@register
class BitLineSar(AdcLaw):
    """Successive approximation on the bit line itself, without sample-and-hold, as in macros of SRAM.

    E = (100 b + 0.001 4^b) fF V^2, t = b (0.00653 R + 0.640) ns and area = 10^(1.206 - 0.0369 b) 2^b um^2: the analog
    model of ZigZag (AimcArray.py, `get_adc_cost`), which fits macros of 28 nm. R is the number of rows on the line.
    """

    kind: Literal["bit_line_sar"] = "bit_line_sar"
    voltage: Annotated[Volts, Field(gt=0)] = 0.9
    """V, supply voltage [V]."""
    rows: Annotated[int, Field(ge=1, le=100_000)] = 128
    """R, rows on the bit line."""

    def figures(self, bits: int) -> Converter:
        """The equations above."""
        energy = _comparisons_and_noise(bits, bits, self.voltage)
        time = bits * (0.00653 * self.rows + 0.640) * 1e-9
        return Converter(energy, time, 10 ** (1.206 - 0.0369 * bits) * 2.0**bits * 1e-12)


@register
class CapacitorSar(AdcLaw):
    """Successive approximation whose energy grows with its capacitor array. Noise is left out, so that it grows slowly.

    The converter of ISAAC (8 bits: 1.67 pJ, 1,200 um^2, 1.2 GS/s) as CiMLoop's library scales it by Saberi et al.
    (2011): E = 0.195 b + 0.00042 2^b pJ, area = 81.7 b + 2.134 2^b um^2; time in proportion to b.
    """

    kind: Literal["capacitor_sar"] = "capacitor_sar"

    def figures(self, bits: int) -> Converter:
        """The equations above."""
        energy = (0.195 * bits + 0.00042 * 2.0**bits) * 1e-12
        return Converter(energy, bits / 8 / 1.2e9, _capacitor_area(bits))


@register
class Flash(AdcLaw):
    """Flash: 2^b - 1 comparators decide at once.

    The comparators are those of the kind `sar`: each costs 100 fF V^2 and takes 0.640 ns and 81.7 um^2, and thermal
    noise takes 0.001 4^b fF V^2 of each conversion.
    """

    kind: Literal["flash"] = "flash"
    voltage: Annotated[Volts, Field(gt=0)] = 0.9
    """V, supply voltage [V]."""

    def figures(self, bits: int) -> Converter:
        """The equations above."""
        comparators = 2.0**bits - 1
        energy = _comparisons_and_noise(comparators, bits, self.voltage)
        return Converter(energy, 0.640e-9, 81.7e-12 * comparators)


@register
class Survey(AdcLaw):
    """The best converters of Murmann's survey at each rate.

    E = 10^((SNDR - FoM) / 10) / 2 with SNDR = 6.02 b + 1.76 dB and Schreier's figure of merit
    FoM = min(180.1, 302.7 - 6.461 ln f) dB: the regression of Andrulis et al. (arXiv 2404.06553; model.yaml of
    accelergy-adc-plug-in), with area = exp(4.851 + 0.0667 ln f + 0.797 ln F - 0.134 b) (E / pJ)^0.424 um^2. Time is
    1 / f. Above 0.17 GHz a higher rate costs energy.
    """

    kind: Literal["survey"] = "survey"
    technology: Nanometers = 32.0
    """F, feature size [nm]."""
    rate: Annotated[ConversionRate, Field(gt=0)] = 1.28e9
    """f without another rate [Hz]."""

    def figures(self, bits: int, rate: float | None = None) -> Converter:
        """The equations above, at `rate` [Hz]."""
        rate = rate or self.rate
        merit = min(180.14159, 302.73870 - 6.46079 * log(rate))
        energy = 10 ** ((6.02 * bits + 1.76 - merit) / 10) / 2
        logarithm = 4.850567 + 0.0666585 * log(rate) + 0.797324 * log(self.technology) - 0.1343728 * bits
        return Converter(energy, 1 / rate, exp(logarithm) * (energy * 1e12) ** 0.4236572 * 1e-12)

    def scaled(self, published: Converter, old_bits: int, bits: int, rate: float | None = None) -> Converter:
        """A published converter at another resolution and rate; without a rate it keeps its own."""
        own = 1 / published.time
        old, new = self.figures(old_bits, own), self.figures(bits, rate or own)
        time = published.time if rate is None else 1 / rate
        return Converter(published.energy * (new.energy / old.energy), time, published.area * (new.area / old.area))


@register
class LinearConverter(AdcLaw):
    """Energy and time in proportion to bits, the same area for all: PUMA's simulator (src/ima.py, constants.py).

    It leaves out noise and capacitors, so its energy is too low above 8 bits and its area too large below. Figures are
    those of ISAAC.
    """

    kind: Literal["linear"] = "linear"

    def figures(self, bits: int) -> Converter:
        """In proportion to b: 1.5625 pJ and 0.78125 ns at 8 bits; 1,200 um^2."""
        return Converter(1.5625e-12 * bits / 8, 0.78125e-9 * bits / 8, 1200e-12)
